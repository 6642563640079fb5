"""The demo's model, trained with its own settings."""

from polymnist import analyse, train
from tests.helpers.demos import trained

import pytest


@pytest.mark.demos
def test_the_demo_generates_images_of_the_digit_that_is_given(tmp_path):
    trained(train, tmp_path / "run")
    options = {"demo": True, "data_dir": tmp_path, "umap": False, "n_samples": 200, "n_test": 100}
    figures = analyse.main(analyse.Config(tmp_path / "run", **options))
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    assert min(figures[f"classifier, m{a}"] for a in range(5)) > 0.95
    assert sum(figures[f"coherence, m{a} -> m{b}"] for a, b in pairs) / len(pairs) > 0.6, "a tenth is chance"
