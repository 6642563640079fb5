"""mnist's networks in float64, and inputs for them."""

from types import SimpleNamespace

from mnist.model import build

import torch


def model_of(name, n_latents=4):
    return build(SimpleNamespace(n_latents=n_latents, model=name, posterior="gaussian")).double()


def experts_by_hand(model, inputs):
    """Mean and variance of each encoder's own output, {name: ...}."""
    outputs = {name: model.encoder[name](x) for name, x in inputs.items()}
    return {name: (mu, logvar.exp()) for name, (mu, logvar) in outputs.items()}


def mnist_inputs(n=5):
    return {"image": torch.rand(n, 1, 28, 28, dtype=torch.float64), "text": torch.randint(10, (n,))}
