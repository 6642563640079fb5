"""A model whose coherence is known: it encodes and decodes classes, to a share of wrong ones."""

from common.data import Examples
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from reports.metrics import Judge

import torch
from torch import nn

C = 4  # classes


class Encoder(nn.Module):
    """One-hot classes (N, C) -> z near 10 times them, to a share of wrong classes."""

    logvar = -10.0

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong = wrong
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        wrong = torch.rand(len(x), 1) < self.wrong
        mu = 10 * torch.where(wrong, x.roll(1, dims=1), x)
        return mu, torch.full_like(mu, self.logvar)


class Decoder(nn.Module):
    """z -> the one-hot class nearest to it, to a share of wrong ones."""

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong = wrong

    def forward(self, z):
        x = nn.functional.one_hot(z.argmax(dim=1), C).to(z)
        return torch.where(torch.rand(len(z), 1) < self.wrong, x.roll(1, dims=1), x)


def model(encoder=(0.0, 0.0), decoder=(0.0, 0.0)):
    names = ("a", "b")
    return MVAE(
        encoder={name: Encoder(wrong) for name, wrong in zip(names, encoder, strict=True)},
        decoder={name: Decoder(wrong) for name, wrong in zip(names, decoder, strict=True)},
        likelihood=GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0) for name in names}),
        latent_dim=C,
    )


def examples(n=4000):
    """Examples of both modalities and their classes (N, 1)."""
    label = torch.randint(C, (n,))
    x = nn.functional.one_hot(label, C).float()
    return Examples({"a": x, "b": x}), label[:, None]


JUDGES = {
    name: Judge((name,), lambda values, name=name: values[name].argmax(dim=1, keepdim=True)) for name in ("a", "b")
}
SOURCES = {"a": ("a",), "b": ("b",)}
