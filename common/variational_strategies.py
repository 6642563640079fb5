"""Strategies fuse the experts: stacked parameters of q(z|x_m) in, parameters of q(z|x_S) out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import require
from common.experts import product_of_experts, quotient_of_experts
from common.subsets import all_subsets, on_device


class GaussianPoeStrategy(nn.Module):
    """The product of Gaussian experts and the prior (`common.experts.product_of_experts`)."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return product_of_experts(*params, mask)


class GaussianQuotientStrategy(nn.Module):
    """The product of Gaussian posteriors over powers of the prior (`common.experts.quotient_of_experts`)."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return quotient_of_experts(*params, mask)


class OwnExpertStrategy(nn.Module):
    """No fusion: each subset of the modalities has an encoder of its own (VAE, CVAE, JMVAE).

    Args:
        encoders: the names of what each sees, joined by commas where there are several.
    """

    def __init__(self, encoders: Sequence[str]) -> None:
        super().__init__()
        seen = [key.split(",") for key in encoders]
        modalities = dict.fromkeys(name for names in seen for name in names)
        subsets = torch.tensor([[name in names for name in modalities] for names in seen])  # (E, M)
        self.register_buffer("subsets", subsets, persistent=False)

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (E, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D).

        Raises:
            InputError: no encoder sees just what an example has (looked at outside of training only).
        """
        mask = torch.ones_like(self.subsets[:1]) if mask is None else mask
        chosen = (mask.unsqueeze(-2) == self.subsets).all(dim=-1)  # (..., B, E)
        require(self.training or bool(chosen.any(dim=-1).all()), "the model has no encoder for just these modalities")
        weight = chosen.to(params[0]).movedim(-1, 0).unsqueeze(-1)  # (E, ..., B, 1)
        return tuple(
            (weight * p.view(len(p), *[1] * (weight.dim() - p.dim()), *p.shape[1:])).sum(dim=0) for p in params
        )


class MoeStrategy(nn.Module):
    """The mixture, in equal parts, of the experts that an example has, of any family of location and scale."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Two parameters, each (M, B, D), and a mask (..., B, M) -> logits (..., B, M), the two (..., B, M, D)."""
        loc, scale = (p.movedim(0, -2) for p in params)  # (B, M, D)
        return _equal_parts(loc.new_ones(loc.shape[:-1], dtype=torch.bool) if mask is None else mask, loc, scale)


class GaussianMopoeStrategy(nn.Module):
    """The mixture, in equal parts, of the products of all subsets of what an example has: at most T = 2^M - 1.

    MoPoE (Sutter et al. 2021, arXiv 2105.02470), here without the empty subset; each product has the prior as an
    expert, as in MVAE.
    """

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> logits (..., B, T), mu, logvar (..., B, T, D)."""
        m, b, _ = params[0].shape
        mask = params[0].new_ones(b, m, dtype=torch.bool) if mask is None else mask
        subsets = on_device(all_subsets(m), mask.device)  # (T, M)
        given = subsets.view(-1, *[1] * (mask.dim() - 1), m) & mask  # (T, ..., B, M)
        mu, logvar = (p.movedim(0, -2) for p in product_of_experts(*params, given))  # (..., B, T, D)
        return _equal_parts((mask.unsqueeze(-2) | ~subsets).all(dim=-1), mu, logvar)


def _equal_parts(complete: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Only complete components count, (..., B, T); where an example has none they are all the family's standard one."""
    logits = torch.zeros_like(complete, dtype=loc.dtype).masked_fill(~complete & complete.any(-1, True), -torch.inf)
    shape = torch.broadcast_shapes(logits.shape, loc.shape[:-1])
    loc, scale = (p.expand(*shape, -1).masked_fill(~complete.unsqueeze(-1), 0) for p in (loc, scale))
    return logits.expand(shape), loc, scale
