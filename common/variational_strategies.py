"""Strategies fuse the experts: stacked parameters of q(z|x_m) in, parameters of q(z|x_S) out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import require
from common.experts import product_of_experts, quotient_of_experts
from common.subsets import all_subsets, on_device


class Strategy(nn.Module):
    """Fuses experts: parameters (M, B, D) and a mask (..., B, M) in, parameters of q(z|x_S) (..., B, D) out."""

    is_product = False  # each expert alone is fused with the prior, as if there were no others
    nothing_is_prior = True  # q(z|nothing) is the prior
    per_latent = True  # a latent's parameters come from the experts' parameters of that latent alone


class GaussianPoeStrategy(Strategy):
    """The product of Gaussian experts and the prior (`common.experts.product_of_experts`)."""

    is_product = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return product_of_experts(*params, mask)


class GaussianQuotientStrategy(Strategy):
    """The product of Gaussian posteriors over powers of the prior (`common.experts.quotient_of_experts`)."""

    is_product = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return quotient_of_experts(*params, mask)


class OwnExpertStrategy(Strategy):
    """No fusion: each subset of the modalities has its own encoder (VAE, CVAE, JMVAE).

    Args:
        encoders: the modalities that each encoder sees, joined by commas.
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
            InputError: no encoder sees exactly the modalities of an example (checked outside of training only).
        """
        mask = torch.ones_like(self.subsets[:1]) if mask is None else mask
        chosen = (mask.unsqueeze(-2) == self.subsets).all(dim=-1)  # (..., B, E)
        require(self.training or bool(chosen.any(dim=-1).all()), "the model has no encoder for just these modalities")
        weight = chosen.to(params[0]).movedim(-1, 0).unsqueeze(-1)  # (E, ..., B, 1)
        return tuple(
            (weight * p.view(len(p), *[1] * (weight.dim() - p.dim()), *p.shape[1:])).sum(dim=0) for p in params
        )


class VmfPoeStrategy(Strategy):
    r"""The product of von Mises-Fisher experts and the uniform prior: their natural parameters add up.

    .. math:: \prod_{m \in S} vMF(z; \mu_m, \kappa_m) \propto \exp \Big( z^\top \sum_{m \in S} \kappa_m \mu_m \Big)
    """

    is_product = True

    def forward(self, params: tuple[Tensor], mask: Tensor | None = None) -> tuple[Tensor]:
        """Natural parameters (M, B, D), scaled alike, and a mask (..., B, M) -> those of the product, (..., B, D)."""
        return (masked_sum(*params, mask),)


class SetStrategy(Strategy):
    r"""One posterior from the sum of the present elements' encodings, the set encoder of partial-VAE.

    .. math:: parameters = g \Big( \sum_{m \in S} h_m(x_m) \Big)

    (Ma et al. 2019, EDDI, arXiv 1809.11142; Zaheer et al. 2017, arXiv 1703.06114.)

    Args:
        network: g, (N, H) -> parameters, a tuple of (N, D).
    """

    nothing_is_prior = per_latent = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, params: tuple[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """h (M, B, H) and a mask (..., B, M) -> parameters, each (..., B, D)."""
        (h,) = params
        total = masked_sum(h, mask)  # (..., B, H)
        return tuple(p.view(*total.shape[:-1], -1) for p in self.network(total.flatten(0, -2)))


class LocScaleEbmStrategy(Strategy):
    """Passes the present experts on: the posterior multiplies them (`common.distributions.LocScaleEbm`)."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> the mask, (mu, logvar), each (..., B, M, D)."""
        mu, logvar = (p.movedim(0, -2) for p in params)  # (B, M, D)
        mask = torch.ones_like(mu[..., 0], dtype=torch.bool) if mask is None else mask
        mask = mask.expand(torch.broadcast_shapes(mask.shape, mu.shape[:-1]))
        return mask, mu.expand(*mask.shape, -1), logvar.expand(*mask.shape, -1)


class MoeStrategy(Strategy):
    """The mixture, in equal parts, of the experts that an example has, of any family."""

    def forward(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Parameters, each (M, B, D), and a mask (..., B, M) -> logits (..., B, M), the parameters (..., B, M, D)."""
        params = tuple(p.movedim(0, -2) for p in params)  # (B, M, D)
        shape = params[0].shape[:-1]
        return _equal_parts(params[0].new_ones(shape, dtype=torch.bool) if mask is None else mask, *params)


GaussianMoeStrategy = MoeStrategy


class MopoeStrategy(Strategy):
    """The mixture, in equal parts, of the products of all subsets of an example's modalities: at most T = 2^M - 1.

    MoPoE (Sutter et al. 2021, arXiv 2105.02470), here without the empty subset; each product has the prior as an
    expert, as in MVAE.

    Args:
        product: the strategy for one subset; for Gaussians by default.
    """

    def __init__(self, product: nn.Module | None = None) -> None:
        super().__init__()
        self.product = product or GaussianPoeStrategy()

    def forward(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Parameters, each (M, B, D), and a mask (..., B, M) -> logits (..., B, T), the parameters (..., B, T, D)."""
        m, b, _ = params[0].shape
        mask = params[0].new_ones(b, m, dtype=torch.bool) if mask is None else mask
        subsets = on_device(all_subsets(m), mask.device)  # (T, M)
        given = subsets.view(-1, *[1] * (mask.dim() - 1), m) & mask  # (T, ..., B, M)
        products = (p.movedim(0, -2) for p in self.product(params, given))  # (..., B, T, D)
        return _equal_parts((mask.unsqueeze(-2) | ~subsets).all(dim=-1), *products)


def with_private(
    fused: tuple[Tensor, ...], private: tuple[Tensor, ...], prior: tuple[Tensor, ...], present: Tensor | None
) -> tuple[Tensor, ...]:
    r"""Append a modality's private latents to the parameters of q(z|x_S): its encoder's if present, else the prior's.

    .. math:: q(z, w_1, .., w_M|x_S) = q(z|x_S) \prod_{m \in S} q(w_m|x_m) \prod_{m \notin S} p(w_m)

    (DMVAE, Lee & Pavlovic 2021, arXiv 2103.13139; the components of a mixture share the private posteriors.)

    Args:
        fused: each (..., B, D), for a mixture logits (..., B, T) and each (..., B, T, D).
        private: the encoder's parameters, each (B, d).
        prior: the prior's, each (d,).
        present: which examples have the modality, (..., B); all by default.
    """
    *logits, first = fused[: len(fused) - len(private) + 1]
    appended = []
    for shared, own, default in zip((first, *fused[len(logits) + 1 :]), private, prior, strict=True):
        if present is not None:
            own = torch.where(present.unsqueeze(-1), own, default)  # (..., B, d)
        if logits:
            own = own.unsqueeze(-2)  # alike for all components
        appended.append(torch.cat([shared, own.expand(*shared.shape[:-1], -1)], dim=-1))
    return *logits, *appended


def masked_sum(x: Tensor, mask: Tensor | None) -> Tensor:
    """The sum of x (M, B, D) over the experts that a mask (..., B, M) selects, by default all: (..., B, D)."""
    return x.sum(dim=0) if mask is None else torch.einsum("...bm,mbd->...bd", mask.to(x), x)


def _equal_parts(complete: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
    """Equal weights for the complete components, (..., B, T).

    Parameters of the others are 0; where an example has no complete component, all components have equal weights.
    """
    logits = torch.zeros_like(complete, dtype=params[0].dtype)
    logits = logits.masked_fill(~complete & complete.any(-1, True), -torch.inf)
    shape = torch.broadcast_shapes(logits.shape, params[0].shape[:-1])
    return logits.expand(shape), *(p.expand(*shape, -1).masked_fill(~complete.unsqueeze(-1), 0) for p in params)
