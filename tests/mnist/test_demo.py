"""What a reader of README.md sees first: the demo's model, trained with its own settings."""

import os
import subprocess
import sys

from mnist import loglike, train
from mnist.demo import scanned_digits
from reports import tables
from tests.helpers.demos import accuracy, nearest, trained

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate


def test_the_demos_digits_are_those_of_scikit_learn():
    splits = [scanned_digits(split)[:].modalities for split in ("train", "test")]
    images, labels = (torch.cat([split[name] for split in splits]) for name in ("image", "text"))
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    digits = load_digits()
    assert labels.equal(torch.from_numpy(digits.target)[order])
    expected = interpolate(torch.from_numpy(digits.images)[order, None] / 16, size=(20, 20), mode="bilinear")
    torch.testing.assert_close(images[:, :, 4:-4, 4:-4].double(), expected, atol=0.5 / 255 + 1e-6, rtol=0)
    margins = images.clone()
    margins[:, :, 4:-4, 4:-4] = 0
    assert not margins.any()


def test_the_demos_digits_are_read_without_an_import_of_scikit_learn():
    """It would take a fifth of the time until the first step."""
    code = "import sys, mnist.demo; mnist.demo.scanned_digits('train'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_demo_learns_digits_and_their_labels(tmp_path):
    folder = os.environ.get("DEMO", tmp_path)  # of `make demo`, if it was run before
    model, known, test = trained(train, folder), scanned_digits("train").modalities, scanned_digits("test")[:]
    images, labels = test.modalities.values()
    with torch.no_grad():
        inferred = model.reconstruct({"image": images})["text"]
        asked = torch.arange(10).repeat(20)
        torch.manual_seed(0)
        drawn = model.decode(model.posterior({"text": asked}).sample())["image"].mean
    assert accuracy(inferred, labels) > 0.87
    assert accuracy(nearest(drawn, known["image"], known["text"]), asked) > 0.45, "a tenth is chance"
    estimates = tables.summarise(loglike.evaluate(model, scanned_digits("test").take(slice(150)), n_samples=100))
    mean = {name: estimate["mean"] for name, estimate in estimates.items()}
    assert mean["log p(image)"] > -155, "a model of independent pixels has about -230"
    assert mean["log p(image|text)"] == pytest.approx(mean["log p(image,text)"] - mean["log p(text)"], abs=1e-3)
    assert mean["log p(text|image)"] == pytest.approx(mean["log p(image,text)"] - mean["log p(image)"], abs=1e-3)
    assert mean["log p(text)"] == pytest.approx(-2.3, abs=0.2)
