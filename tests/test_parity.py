"""The original authors' networks and formulas, reproduced on weights and inputs made by tests/reference/fill.py."""

import json
from pathlib import Path

import pytest
import torch
from torch.distributions import kl_divergence

from common.checkpoints import load_model
from tests.reference import fill

REFERENCE = Path(__file__).parent / "reference"
LAYOUTS = json.loads((REFERENCE / "layouts.json").read_text())
VALUES = json.loads((REFERENCE / "values.json").read_text())


def authors_file(path, n_latents=64, **options):
    """A checkpoint as the authors' mnist/train.py writes it, with parameters filled by formula."""
    state_dict = fill.fill({name: torch.empty(shape) for name, shape in LAYOUTS["mnist"].items()})
    checkpoint = {"state_dict": state_dict, "best_loss": 1.0, "n_latents": n_latents, "optimizer": {"state": {}}}
    torch.save(checkpoint, path, **options)
    return path


def check(tensor, expected):
    tensor = tensor.double().reshape(expected["shape"])
    # the relative error of a sum is that of its terms: sums can cancel to nearly nothing
    scale = tensor.abs().sum().item()
    assert tensor.sum().item() == pytest.approx(expected["sum"], abs=1e-4 * scale)
    assert tensor.square().sum().item() == pytest.approx(expected["sumsq"], rel=1e-4)
    torch.testing.assert_close(tensor.flatten()[:6], torch.tensor(expected["first"]).double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "torch 0.3 era"])
@pytest.mark.parametrize("case", ["joint", "image", "text"])
def test_mnist_meets_the_reference_values(tmp_path, case, zip_format):
    model = load_model(authors_file(tmp_path / "model_best.pth.tar", _use_new_zipfile_serialization=zip_format))
    inputs = {"image": fill.image(4, 1, 28), "text": fill.integers("text", (4,), 10)}
    given = model.modalities if case == "joint" else (case,)
    expected = VALUES["mnist"]["cases"][case]
    with torch.no_grad():
        q = model.posterior(inputs, given)
        p = model.decode(q.mean)
        logits = {name: model.decoder[name](q.mean) for name in model.modalities}
    check(q.mean, expected["mu"])
    check(q.variance.log(), expected["logvar"])
    check(logits["image"], expected["image_logits"])
    check(logits["text"], expected["text_logits"])
    torch.testing.assert_close(
        -p["image"].log_prob(inputs["image"]), torch.tensor(expected["image_nll"]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        -p["text"].log_prob(inputs["text"]), torch.tensor(expected["text_nll"]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(kl_divergence(q, model.prior()), torch.tensor(expected["kl"]), rtol=1e-4, atol=0)
