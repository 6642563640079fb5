"""The newer models of two modalities, in folders with convolutions and batch norm: from training to log p."""

import math
from importlib import import_module
from itertools import product

from common.distributions import hamiltonian
from common.models.choices import MODELS, PAIR_MODELS
from tests.helpers.runs import assert_same_run
from tests.helpers.scripts import call

import pytest

OLDER = ("mvae", "mvae-q", "jmvae", "vae", "cvae", "bivcca")  # in these folders' own tests
NEWER = [name for name in PAIR_MODELS if name not in OLDER]
PRIVATE = ["dmvae", "mmvae+", "cmvae"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "name"), [*product(["fashionmnist", "celeba"], NEWER), *product(["celeba"], PRIVATE)]
)
def test_a_run_resumes_exactly_and_has_likelihoods(folder, name, tmp_path, monkeypatch):
    """Half of the examples are unpaired, where the model can learn from them."""
    monkeypatch.setattr(hamiltonian, "LEAPS", 1)  # of jnf's chains, for speed
    train, loglike = (import_module(f"{folder}.{script}") for script in ("train", "loglike"))
    small = ("--demo", "--limit", 12, "--batch-size", 4, "--n-latents", 4, "--annealing-epochs", 0)
    small += ("--lr-schedule", "constant")  # so that a run can be resumed with more epochs
    unpaired = ("--paired-fraction", 0.5) if MODELS[name].unpaired else ()
    for run, lengths in (("whole", (2,)), ("parts", (1, 2))):
        for epochs in lengths:
            options = ("--model", name, *unpaired, "--epochs", epochs, "--resume", "--save-dir", tmp_path / run)
            call(train, *small, *options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    estimates = call(loglike, tmp_path / "whole", "--demo", "--limit", 3, "--n-samples", 4)
    second = "attrs" if folder == "celeba" else "text"
    for target in ("image", f"image,{second}", f"image|{second}"):
        assert math.isfinite(estimates[f"log p({target})"]["mean"]), target
