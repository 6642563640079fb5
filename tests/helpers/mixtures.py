"""What a sample.py decodes when it draws from a mixture of Gaussians."""

from types import SimpleNamespace

import torch

from common.multimodal_vae import MultimodalVAE
from reports import sampling
from tests.helpers.scripts import call


def assert_samples_a_mixture(monkeypatch, script, *args):
    """With --mixture it fits one to training examples of all of the model's modalities, and decodes its draws."""
    fitted, decoded = [], []
    gaussian_mixture, decode = sampling.gaussian_mixture, MultimodalVAE.decode

    def fit(model, train, n):
        assert set(train[:1].modalities) >= set(model.modalities)
        latents = gaussian_mixture(model, train, n)
        fitted.append(n)
        return SimpleNamespace(sample=lambda shape: torch.full((*shape, *latents.event_shape), 3.25))

    def spied(self, z, *args, **options):
        decoded.append(z)
        return decode(self, z, *args, **options)

    monkeypatch.setattr(sampling, "gaussian_mixture", fit)
    monkeypatch.setattr(MultimodalVAE, "decode", spied)
    call(script, *args, "--mixture", 2, "--n-samples", 3)
    assert fitted == [2]
    assert len(decoded[-1]) == 3 and decoded[-1].eq(3.25).all()
