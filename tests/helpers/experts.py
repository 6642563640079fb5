"""Samples of a mixture's experts, one expert after another, as MMVAE's code and the package multivae draw them."""

from common.distributions import Mixture

import torch
from torch.distributions import Distribution


def draw_one_by_one(patch, *families: type[Distribution]) -> None:
    """Through `patch`, pytest's monkeypatch, so that both sides have the same noise; `families` has each expert's."""

    def one_by_one(q, n):
        experts = q.components.factors
        return torch.stack([f(experts.loc[:, t], experts.scale[:, t]).rsample((n,)) for t, f in enumerate(families)])

    patch.setattr(Mixture, "sample_components", one_by_one)
