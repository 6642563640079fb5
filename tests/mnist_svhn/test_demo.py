"""The demo's model, trained with its own settings."""

from mnist_svhn import analyse, train
from tests.helpers.demos import trained

import pytest


@pytest.mark.demos
def test_the_demo_generates_pairs_of_the_same_digit(tmp_path):
    trained(train, tmp_path / "run")
    options = {"demo": True, "data_dir": tmp_path, "umap": False, "n_samples": 200}
    figures = analyse.main(analyse.Config(tmp_path / "run", **options))
    assert figures["classifier, mnist"] > 0.9 and figures["classifier, svhn"] > 0.8
    assert figures["coherence, mnist -> svhn"] > 0.45 and figures["coherence, svhn -> mnist"] > 0.5
    assert figures["coherence, joint"] > 0.25, "a tenth is chance"
