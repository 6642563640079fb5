"""A linear-Gaussian model with private latents: x_m = W_m z + V_m w_m + N(0, s_m^2), all latents N(0, I).

The columns of each [W_m V_m] are orthogonal, so that every posterior is a diagonal Gaussian. Modality c has no private
latents. A latent is the shared z, w_a and w_b side by side; `matrices` hold what each modality reads of it, zeros
elsewhere, so that the textbook formulas of `tests.helpers.linear_gaussian` apply.
"""

from common.likelihoods import GroupedLikelihood
from common.models import VAE
from tests.helpers.linear_gaussian import Decoder, Expert, Gaussian

import torch
from torch import nn

N_SHARED, PRIVATE = 2, {"a": 2, "b": 1}
LATENT_DIM = N_SHARED + sum(PRIVATE.values())
PLACES = {"a": slice(2, 4), "b": slice(4, 5), "c": slice(5, 5)}  # of the private latents
N_FEATURES = {"a": 5, "b": 4, "c": 3}
SUBSETS = [("a",), ("b",), ("c",), ("a", "b"), ("b", "c"), ("a", "c"), ("a", "b", "c")]


class SharedAndPrivate(nn.Module):
    """The likelihood of the shared latents as an expert, and the exact posterior of the private ones, if any."""

    def __init__(self, shared, private, scale):
        super().__init__()
        self.shared = Expert(shared, scale)
        self.private = Expert(private, scale) if private.shape[1] else None
        if self.private is not None:  # an own code is not multiplied with the prior: it holds it already
            precision = self.private.precision.detach()
            self.private.precision.data = 1 + precision
            self.private.mean.data *= precision / (1 + precision)

    def forward(self, x):
        experts = [self.shared(x)] if self.private is None else [self.shared(x), self.private(x)]
        return tuple(torch.cat(params, dim=-1) for params in zip(*experts, strict=True))


def private_linear_gaussian(fusion="poe", posterior="gaussian", names=("a", "b", "c"), learn_prior=False):
    """The model, in float64, with its exact posterior if it is a product; its matrices (N_m, D) and scales s_m."""
    generator = torch.Generator().manual_seed(2)
    encoder, decoder, matrices, scales = {}, {}, {}, {}
    for m, name in enumerate(names):
        n_private = PRIVATE.get(name, 0)
        q, _ = torch.linalg.qr(
            torch.randn(N_FEATURES[name], N_SHARED + n_private, generator=generator, dtype=torch.float64)
        )
        lengths = torch.tensor([1.5, 0.7, 1.2, 0.9], dtype=torch.float64)
        weight, scales[name] = q * lengths[: N_SHARED + n_private], 0.5 + 0.3 * m
        matrices[name] = torch.zeros(N_FEATURES[name], LATENT_DIM, dtype=torch.float64)
        matrices[name][:, :N_SHARED], matrices[name][:, PLACES[name]] = weight[:, :N_SHARED], weight[:, N_SHARED:]
        encoder[name] = SharedAndPrivate(weight[:, :N_SHARED], weight[:, N_SHARED:], scales[name])
        decoder[name] = Decoder(weight.clone())
    model = VAE(
        fusion,
        encoder,
        decoder,
        GroupedLikelihood(**{name: Gaussian(scales[name]) for name in names}),
        latent_dim=LATENT_DIM,
        posterior=posterior,
        learn_prior=learn_prior,
        private=PRIVATE,
    )
    return model.double().eval(), matrices, scales
