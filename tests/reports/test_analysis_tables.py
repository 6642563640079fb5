"""What the tables of analyse.py say."""

from reports import analysis_tables


def test_judges_that_err_are_named():
    shares = {"classifier, a": 0.16, "classifier, b": 0.99, "coherence, joint": 0.1}
    told = analysis_tables.weak_judges({name: {"mean": x, "stderr": 0.01} for name, x in shares.items()})
    assert told == "Coherence says little where its judge errs on the test examples: classifier, a (16.0 %)."
    assert analysis_tables.weak_judges({"classifier, b": {"mean": 0.99, "stderr": 0.01}}) == ""


def test_few_training_examples_are_noted():
    assert "on 999 training examples" in analysis_tables.few_training_examples(999)
    assert analysis_tables.few_training_examples(1000) == ""


def test_divergences_have_their_errors_and_j_is_explained():
    table = analysis_tables.kl_table({"J(q(z|a), q(z|b))": {"mean": 1.234, "stderr": 0.056}}, "known")
    assert "| J(q(z\\|a), q(z\\|b)) | 1.23 | 0.06 |" in str(table) and "both directions" in str(table)
    assert "both directions" not in str(analysis_tables.kl_table({}, "known"))
