"""How the models of mnist fuse their experts, and what one learns from few pairs."""

import math
from pathlib import Path
from types import SimpleNamespace

import mnist.data
import mnist.model
import mnist.train
from common.data import unpair
from mnist.model import build
from tests.helpers.data_config import data_config
from tests.helpers.digits import experts_by_hand, mnist_inputs, model_of
from training import objective_of

import pytest
import torch
from torch import nn


@pytest.mark.parametrize("name", ["mvae", "mvae-q", "jmvae", "bivcca", "mopoe"])
def test_each_model_fuses_its_experts_in_its_own_way(name):
    """Mean and variance of q(z|image, text) from its encoders' outputs, by the papers' formulas."""
    model, inputs = model_of(name).eval(), mnist_inputs()
    (mu_x, var_x), (mu_y, var_y) = experts_by_hand(model, inputs).values()
    t_x, t_y = 1 / var_x, 1 / var_y
    product = ((t_x * mu_x + t_y * mu_y) / (1 + t_x + t_y), 1 / (1 + t_x + t_y))
    alone = [(t * mu / (1 + t), 1 / (1 + t)) for t, mu in ((t_x, mu_x), (t_y, mu_y))]
    joint = model.encoder["image,text"](inputs["image"], inputs["text"]) if name == "jmvae" else None
    parts = {
        "mvae": [product],
        "mvae-q": [(((1 + t_x) * mu_x + (1 + t_y) * mu_y) / (1 + t_x + t_y), 1 / (1 + t_x + t_y))],
        "jmvae": [(joint[0], joint[1].exp())] if joint else [],
        "bivcca": [(mu_x, var_x), (mu_y, var_y)],
        "mopoe": [*alone, product],
    }[name]
    mean = sum(m for m, _ in parts) / len(parts)
    q = model.fuse(model.experts(model.observe(inputs)))
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.variance, sum(v + m.square() for m, v in parts) / len(parts) - mean.square())


def test_mvae_learns_from_few_pairs(monkeypatch):
    """100 pairs, and 900 images and 900 labels alone; seeds 0 to 5 gave 0.40 and more, and guessing gives 0.1."""
    monkeypatch.setattr(mnist.model, "WIDTH", 128)
    torch.manual_seed(0)
    model = build(SimpleNamespace(n_latents=8, model="mvae", posterior="gaussian"))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):  # wider than usual, so that a hundred steps are enough
            nn.init.normal_(layer.weight, std=1.5 / math.sqrt(layer.in_features))
    digits = mnist.data.load("train", data_config(Path(), demo=True))
    train, held_out = digits.take(slice(1000)), digits.take(slice(1000, None))[:]
    train = unpair(train, 0.1, 0)
    objective = objective_of(mnist.train.Config(lambda_text=20.0), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    for _ in range(4):
        for rows in torch.randperm(len(train)).split(50):
            optimizer.zero_grad()
            objective(train[rows], 0.1).backward()
            optimizer.step()
    inferred = model.eval().reconstruct({"image": held_out.modalities["image"]})["text"]
    assert (inferred == held_out.modalities["text"]).double().mean() > 0.25
