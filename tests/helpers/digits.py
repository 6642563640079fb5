"""mnist's networks in float64, inputs for them, and their terms written out."""

from types import SimpleNamespace

import torch
from torch.distributions import Bernoulli, Categorical, Independent

from mnist.model import build

LAMBDAS, BETA = {"image": 1.5, "text": 50.0}, 0.3


def model_of(name, n_latents=4):
    return build(SimpleNamespace(n_latents=n_latents, model=name, posterior="gaussian")).double()


def inputs_of(model, n=5):
    return {name: x for name, x in mnist_inputs(n).items() if name in model.modalities}


def experts_by_hand(model, inputs):
    """Mean and variance of each encoder's own output, {name: ...}."""
    outputs = {name: model.encoder[name](x) for name, x in inputs.items()}
    return {name: (mu, logvar.exp()) for name, (mu, logvar) in outputs.items()}


def log_p_by_hand(model, z, inputs):
    """sum_m lambda_m log p(x_m|z) of mnist's networks, for z (B, D)."""
    image = Independent(Bernoulli(logits=model.decoder["image"](z), validate_args=False), 3)
    text = Categorical(logits=model.decoder["text"](z))
    return LAMBDAS["image"] * image.log_prob(inputs["image"]) + LAMBDAS["text"] * text.log_prob(inputs["text"])


def certain_joint(model, inputs):
    """Mean and log-variance of the joint encoder, made so narrow that a sample is its mean."""
    encoder = model.encoder["image,text"]
    with torch.no_grad():
        encoder.head[-1].linear.weight[4:] = 0
        encoder.head[-1].linear.bias[4:] = -60
    return encoder(inputs["image"], inputs["text"])


def certain(model):
    """Make the experts so narrow that a sample of any posterior is its mean to float64's last digits."""
    for name in model.modalities:
        with torch.no_grad():
            model.encoder[name][-1].linear.weight[model.prior.zeros.numel() :] = 0
            model.encoder[name][-1].linear.bias[model.prior.zeros.numel() :] = -60
    return model


def mnist_inputs(n=5):
    return {"image": torch.rand(n, 1, 28, 28, dtype=torch.float64), "text": torch.randint(10, (n,))}
