"""Strategies fuse experts: stacked parameters of the q(z|x_m) in, parameters of q(z|x_S) out."""

from collections.abc import Iterable, Sequence

from common.errors import require
from common.experts import masked_sum, product_of_experts, quotient_of_experts
from common.subsets import all_subsets, on_device

import torch
from torch import Tensor, nn


class Strategy(nn.Module):
    """Fuses experts: parameters, each (M, B, D), and a mask (..., B, M) -> parameters of q(z|x_S), each (..., B, D)."""

    per_latent = True  # a latent's parameters come only from the experts' parameters of that latent
    fuses_every_subset = True  # there is a q(z|x_S) of every subset S
    takes_joint_encoders = False  # an encoder may see several modalities
    is_mixture = False  # it gives the components of a mixture
    learns_weights = False  # they have weights with gradients
    needs_standard_prior = False  # q(z|x_S) holds p(z) as N(0, I), for vmf experts as the uniform distribution

    def conditional(self, fused: tuple[Tensor, ...], mask: Tensor | None) -> tuple[Tensor, ...]:
        """The parameters of the q(z|x_S) to generate from, given the fused ones and a mask (..., B, M)."""
        return fused


class GaussianPoeStrategy(Strategy):
    """The product of Gaussian experts and the prior N(0, I) (`common.experts.product_of_experts`)."""

    needs_standard_prior = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return product_of_experts(*params, mask)


class GaussianProductStrategy(Strategy):
    """The product of Gaussian experts without the prior (MVTCAE, Hwang et al. 2021); without experts the prior."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return product_of_experts(*params, mask, with_prior=False)


class GaussianQuotientStrategy(Strategy):
    """The product of Gaussian posteriors over powers of N(0, I) (`common.experts.quotient_of_experts`)."""

    needs_standard_prior = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return quotient_of_experts(*params, mask)


class OwnExpertStrategy(Strategy):
    """No fusion: each subset of the modalities has its own encoder (VAE, CVAE, JMVAE).

    Args:
        encoders: for each of E encoders the modalities that it sees, joined by commas.
    """

    takes_joint_encoders = True

    def __init__(self, encoders: Sequence[str]) -> None:
        super().__init__()
        self.encoders, seen = encoders, [key.split(",") for key in encoders]
        modalities = dict.fromkeys(name for names in seen for name in names)
        subsets = torch.tensor([[name in names for name in modalities] for names in seen])  # (E, M)
        self.register_buffer("subsets", subsets, persistent=False)
        self.fuses_every_subset = len(set(map(frozenset, seen))) == 2 ** len(modalities) - 1

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (E, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D).

        Raises:
            InputError: no encoder sees exactly the modalities of an example. Not checked in training: CVAE may get
                images without labels there, which its decoder does not score. An example without any modality has the
                parameters of the standard prior, 0.
        """
        mask = torch.ones_like(self.subsets[:1]) if mask is None else mask
        chosen = (mask.unsqueeze(-2) == self.subsets).all(dim=-1)  # (..., B, E)
        require(
            self.training or bool((chosen.any(dim=-1) | ~mask.any(dim=-1)).all()),
            f"the model has no encoder for just these modalities: it has those of {'; '.join(self.encoders)}",
        )
        weight = chosen.to(params[0]).movedim(-1, 0).unsqueeze(-1)  # (E, ..., B, 1)
        return tuple(
            (weight * p.view(len(p), *[1] * (weight.dim() - p.dim()), *p.shape[1:])).sum(dim=0) for p in params
        )


class VmfPoeStrategy(Strategy):
    r"""The product of von Mises-Fisher experts and the uniform prior: the sum of their natural parameters.

    .. math:: \prod_{m \in S} vMF(z; \mu_m, \kappa_m) \propto \exp \Big( z^\top \sum_{m \in S} \kappa_m \mu_m \Big)
    """

    needs_standard_prior = True

    def forward(self, params: tuple[Tensor], mask: Tensor | None = None) -> tuple[Tensor]:
        """Natural parameters (M, B, D), all on one scale, and a mask (..., B, M) -> the product's, (..., B, D)."""
        return (masked_sum(*params, mask),)


class SetStrategy(Strategy):
    r"""One posterior from the sum of the present elements' encodings: the set encoder of the partial VAE.

    .. math:: parameters = g \Big( \sum_{m \in S} h_m(x_m) \Big)

    (Ma et al. 2019, EDDI, arXiv 1809.11142; Zaheer et al. 2017, arXiv 1703.06114.)

    Args:
        network: g, (N, H) -> parameters, a tuple of (N, D).
    """

    per_latent = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, params: tuple[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """h (M, B, H) and a mask (..., B, M) -> parameters (..., B, D), of the standard prior where S is empty."""
        (h,) = params
        total = masked_sum(h, mask)  # (..., B, H)
        outputs = (p.view(*total.shape[:-1], -1) for p in self.network(total.flatten(0, -2)))
        return _zero_without_modalities(mask, outputs)


class UnstructuredStrategy(Strategy):
    r"""One posterior from one network on all modalities' values, zeros where absent, and the mask.

    .. math:: parameters = g(b_1 x_1, .., b_M x_M, b), \quad b_m = 1_{m \in S}

    A baseline that knows nothing of products or sets. All modalities need values of the same shape.

    Args:
        network: g, a tuple of the values (N, M H) and the mask (N, M) as numbers -> parameters, a tuple of (N, D).
    """

    per_latent = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, params: tuple[Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Values (M, B, H) and a mask (..., B, M) -> parameters (..., B, D), of the standard prior where S is empty."""
        (x,) = params
        x = x.transpose(0, 1)  # (B, M, H)
        present = x.new_ones(x.shape[:2]) if mask is None else mask.to(x)
        values = x * present.unsqueeze(-1)  # (..., B, M, H)
        present = present.expand(values.shape[:-1])
        outputs = self.network((values.flatten(-2).flatten(0, -2), present.flatten(0, -2)))
        return _zero_without_modalities(mask, (p.view(*present.shape[:-1], -1) for p in outputs))


class LocScaleEbmStrategy(Strategy):
    """Passes the experts on to the posterior, which multiplies those present (`common.distributions.LocScaleEbm`)."""

    needs_standard_prior = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> the mask, (mu, logvar), each (..., B, M, D)."""
        mu, logvar = (p.movedim(0, -2) for p in params)  # (B, M, D)
        mask = torch.ones_like(mu[..., 0], dtype=torch.bool) if mask is None else mask
        mask = mask.expand(torch.broadcast_shapes(mask.shape, mu.shape[:-1]))
        return mask, mu.expand(*mask.shape, -1), logvar.expand(*mask.shape, -1)


class JointFlowsStrategy(Strategy):
    """Passes a joint encoder and an expert for each modality on to the posterior (`common.distributions.JointFlows`).

    Args:
        encoders: each modality, and all of them joined by commas.

    Raises:
        InputError: other encoders.
    """

    takes_joint_encoders = needs_standard_prior = True

    def __init__(self, encoders: Sequence[str]) -> None:
        super().__init__()
        modalities = dict.fromkeys(name for key in encoders for name in key.split(","))
        joint = [key for key in encoders if set(key.split(",")) == set(modalities)]
        require(
            len(joint) == 1 and set(encoders) == {*modalities, *joint} and len(modalities) > 1,
            f"JNF needs an encoder for each modality, and one of all of them: not {'; '.join(encoders)}",
        )
        self.order = [list(encoders).index(key) for key in (*modalities, *joint)]

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(mu, logvar), each (M + 1, B, D), and a mask (..., B, M) -> the mask, (mu, logvar), each (..., B, M + 1, D).

        The joint encoder's come last.
        """
        mu, logvar = (torch.stack([p[e] for e in self.order], dim=-2) for p in params)  # (B, M + 1, D)
        mask = torch.ones_like(mu[..., :-1, 0], dtype=torch.bool) if mask is None else mask
        mask = mask.expand(torch.broadcast_shapes(mask.shape, (len(mu), mask.shape[-1])))
        shape = (*mask.shape[:-1], *mu.shape[-2:])
        return mask, mu.expand(shape), logvar.expand(shape)


class MoeStrategy(Strategy):
    """The equally weighted mixture of the present experts, of any family (MMVAE, Shi et al. 2019, arXiv 1911.03393)."""

    is_mixture = True

    def forward(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Parameters, each (M, B, D), and a mask (..., B, M) -> logits (..., B, M), the parameters (..., B, M, D)."""
        return mixture_of_present(mask, *(p.movedim(0, -2) for p in params))


class MopoeStrategy(Strategy):
    """The equally weighted mixture of the products of all subsets of the present modalities, at most T = 2^M - 1.

    MoPoE (Sutter et al. 2021, arXiv 2105.02470), here without the empty subset. The prior is an expert of each product,
    as in MVAE. Objectives and estimates draw from the mixture. To generate from x_S, z is drawn only from the product
    over all of S (`conditional`), as in the paper.

    Args:
        product: the strategy that fuses one subset, by default the Gaussian product.
        logits: of the learned weights of all subsets, (2^M - 1,); an example that lacks modalities has those of its own
            ones, normalised. None: equal weights.
    """

    is_mixture = True

    def __init__(self, product: Strategy | None = None, logits: nn.Parameter | None = None) -> None:
        super().__init__()
        self.product, self.logits, self.learns_weights = product or GaussianPoeStrategy(), logits, logits is not None
        self.needs_standard_prior = self.product.needs_standard_prior

    def forward(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Parameters, each (M, B, D), and a mask (..., B, M) -> logits (..., B, T), the parameters (..., B, T, D)."""
        subsets = on_device(all_subsets(len(params[0])), params[0].device)  # (T, M)
        if mask is None:
            given, all_present = subsets.unsqueeze(1), None
        else:
            given = subsets.view(-1, *[1] * (mask.dim() - 1), mask.shape[-1]) & mask  # (T, ..., B, M)
            all_present = (mask.unsqueeze(-2) | ~subsets).all(dim=-1)
        products = (p.movedim(0, -2) for p in self.products(params, given, subsets))  # (..., B, T, D)
        return mixture_of_present(all_present, *products, logits=self.logits)

    def products(self, params: tuple[Tensor, ...], given: Tensor, subsets: Tensor) -> tuple[Tensor, ...]:
        """The parameters of each subset's product, each (T, ..., B, D).

        Args:
            given: the experts of each subset that an example has, (T, ..., B, M) bool.
            subsets: (T, M) bool.
        """
        return self.product(params, given)

    def conditional(self, fused: tuple[Tensor, ...], mask: Tensor | None) -> tuple[Tensor, ...]:
        """The mixture's only component that sees all modalities of an example: logits and parameters with T = 1."""
        logits, *params = fused
        if mask is None:
            component = torch.full_like(logits[..., 0], logits.shape[-1] - 1, dtype=torch.long)
        else:  # `all_subsets` lists them by their binary numbers; without any modality all components are equal
            numbers = (mask * 2 ** torch.arange(mask.shape[-1], device=mask.device)).sum(dim=-1)
            component = (numbers - 1).clamp(min=0).expand(logits.shape[:-1])
        index = component[..., None, None]
        only = (p.gather(-2, index.expand(*index.shape[:-1], p.shape[-1])) for p in params)
        return torch.zeros_like(logits[..., :1]), *only


class PublishedMopoeStrategy(MopoeStrategy):
    """MoPoE's mixture as in its authors' code: only the product of all modalities includes the prior."""

    def products(self, params: tuple[Tensor, ...], given: Tensor, subsets: Tensor) -> tuple[Tensor, ...]:
        of_all = subsets.all(dim=1).view(-1, *[1] * (given.dim() - 2))  # (T, ..., 1)
        return product_of_experts(*params, given, with_prior=of_all)


def _zero_without_modalities(mask: Tensor | None, params: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Parameters (..., B, D), those of the standard prior, 0, in rows without any modality in a mask (..., B, M)."""
    return tuple(params) if mask is None else tuple(p * mask.any(dim=-1, keepdim=True) for p in params)


def mixture_of_present(all_present: Tensor | None, *params: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
    """The parameters of the mixture of the components whose experts are all present.

    The other components have weight 0 and the parameters of one of these, so that their samples and densities stay
    finite. In an example without any such component all components have equal weights and parameters 0.

    Args:
        all_present: which components have all their experts, (..., B, T) bool; None for all of them.
        params: the components' parameters, each (..., B, T, D).
        logits: of the components' weights, (..., B, T) or broadcastable to it; by default equal ones.

    Returns:
        logits (..., B, T) and the parameters, each (..., B, T, D).
    """
    logits = params[0].new_zeros(()) if logits is None else logits
    if all_present is None:
        return logits.expand(params[0].shape[:-1]), *params
    has_any = all_present.any(dim=-1, keepdim=True)
    logits = torch.where(has_any, logits, 0).masked_fill(~all_present & has_any, -torch.inf)
    shape = torch.broadcast_shapes(logits.shape, params[0].shape[:-1])
    first = all_present.int().argmax(dim=-1, keepdim=True)  # (..., B, 1)
    own = torch.arange(all_present.shape[-1], device=all_present.device)
    source = torch.where(all_present, own, first).unsqueeze(-1)  # (..., B, T, 1)
    filled = (p.expand(*shape, -1).masked_fill(~all_present.unsqueeze(-1), 0) for p in params)
    return logits.expand(shape), *(p.gather(-2, source.expand_as(p)) for p in filled)
