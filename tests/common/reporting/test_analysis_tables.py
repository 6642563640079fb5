"""What the tables of analyse.py say."""

from common.reporting import analysis_tables


def test_judges_that_err_are_named():
    shares = {"classifier, a": 0.16, "classifier, b": 0.99, "coherence, joint": 1.0}
    told = analysis_tables.weak_judges(shares)
    assert told == "Coherence says little where its judge errs on the test examples: classifier, a (16.0 %)."
    assert analysis_tables.weak_judges({"classifier, b": 0.99}) == ""


def test_few_training_examples_are_noted():
    assert "on 999 training examples" in analysis_tables.few_latents(999)
    assert analysis_tables.few_latents(1000) == ""


def test_similarities_have_three_decimals():
    table = analysis_tables.ssim_table({"all -> m0": 0.12345})
    assert table.figures == {"all -> m0": 0.12345} and "| all -> m0 | 0.123 |" in str(table)
