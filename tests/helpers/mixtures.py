"""What a sample.py decodes when it draws from a density that was fitted to latents."""

from types import SimpleNamespace

from common import fitted_priors
from common.multimodal_vae import MultimodalVAE
from reports import sampling
from tests.helpers.scripts import call

import torch


def assert_samples_a_mixture(monkeypatch, script, *args):
    """With --mixture it fits one to training examples of all of the model's modalities, and decodes its draws.

    With --latent-prior it decodes those of the density beside the model.
    """
    fitted, decoded = [], []
    gaussian_mixture, decode = sampling.gaussian_mixture, MultimodalVAE.decode

    def fit(model, train, n):
        assert set(train[:1].modalities) >= set(model.modalities)
        latents = gaussian_mixture(model, train, n)
        fitted.append(n)
        return SimpleNamespace(sample=lambda shape: torch.full((*shape, *latents.event_shape), 3.25))

    def load(run, kind, model):
        fitted.append(kind)
        return SimpleNamespace(sample=lambda shape: torch.full((*shape, model.latent_dim), 2.5))

    def spied(self, z, *args, **options):
        decoded.append(z)
        return decode(self, z, *args, **options)

    monkeypatch.setattr(sampling, "gaussian_mixture", fit)
    monkeypatch.setattr(fitted_priors, "load", load)
    monkeypatch.setattr(MultimodalVAE, "decode", spied)
    for name, value, drawn in (("--mixture", 2, 3.25), ("--latent-prior", "maf", 2.5)):
        call(script, *args, name, value, "--n-samples", 3)
        assert fitted.pop() == value and not fitted
        assert len(decoded[-1]) == 3 and decoded[-1].eq(drawn).all()
