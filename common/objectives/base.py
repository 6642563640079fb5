"""What all objectives share: a bound and its terms, the weights and the loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from common.data.batches import Batch
from common.errors import require
from common.execution.score import score
from common.multimodal_vae import MultimodalVAE
from common.plain_pieces import assembled

import torch
from torch import Tensor, nn

Scorer = Callable[..., dict[str, Tensor]]  # (z (K, T, B, D), rows) -> {name: log p(x_m|z) (K, T, B)}


class Bound(NamedTuple):
    """A bound for each example, and its terms.

    value: what is maximised, (B,); terms: its parts without weights and beta, nats, {name: (B,)}.

    A term is named SUBSET/MODALITY, SUBSET/kl, or SUBSET/kl from joint. The subset is "joint", a modality's name,
    NAME[i] for a set's element, "mixture", "ar" for the chain rule, or "subset1", "subset2" for the random ones. A term
    is 0 for examples that it does not apply to, so that its batch mean is its contribution to the loss.
    """

    value: Tensor
    terms: dict[str, Tensor]

    @staticmethod
    def joined(bounds: "Sequence[Bound]") -> "Bound":
        """The bound of all examples from those of a batch's parts."""
        values, terms = zip(*bounds, strict=True)
        return Bound(torch.cat(values), {name: torch.cat([term[name] for term in terms]) for name in terms[0]})

    def detach(self) -> "Bound":
        """The same without gradients."""
        return Bound(self.value.detach(), {name: term.detach() for name, term in self.terms.items()})


class Objective(nn.Module):
    """A model and its loss; a subclass has `bound(inputs, beta)`, and `penalised` if the loss is not minus its mean.

    Args:
        model: the model to train.
    """

    same_operations = False  # whether all batches of a size take the same operations

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Tensor:
        """The loss to minimise, a scalar, nats."""
        return self.loss(inputs, beta)[0]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        """The loss, the penalty minus the bound averaged over the batch (a scalar, nats), and that bound."""
        surrogate, penalty, bound = self.penalised(inputs, beta)
        return penalty - surrogate.mean(), bound

    def penalised(
        self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0
    ) -> tuple[Tensor, Tensor | float, Bound]:
        """What is maximised of each row, (B,), with its gradient; the penalty of the batch, a scalar; the bound."""
        bound = self.bound(inputs, beta)
        return bound.value, 0.0, bound

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int, share: float = 1.0) -> Bound:
        """Add the gradient of the rows' losses, divided by n, and of the penalty to the parameters' gradients.

        Args:
            n: the number of examples over all processes, each of which may have several rows.
            share: the part of these examples that the inputs are. Their penalty counts by it.

        Returns:
            the bound, without gradient.
        """
        surrogate, penalty, bound = self.penalised(inputs, beta)
        (share * penalty - surrogate.sum() / n).backward()
        return bound.detach()


class MultimodalObjective(Objective):
    """A bound on the log-likelihood of modalities.

    Args:
        model: the model, whose `weights` are the lambdas unless others are given; or its six pieces in a plain
            ModuleDict (`common.plain_pieces.assembled`).
        weights: {name: lambda}.

    Raises:
        InputError: a weight of a modality that the model does not have, or a posterior or a prior that the bound does
            not fit.
    """

    unimodal = False  # whether each modality that an example has counts alone too
    learns_weights = True  # whether its gradient has that of a mixture's weights
    of_mixtures: bool | None = None  # whether the posterior has to be a mixture, or must not be one; None: any
    needs_closed_form_prior_kl = True
    score = staticmethod(score)  # (model, batch, z (K, T, B, D), rows) -> {name: log p(x_m|z) (K, T, B)}

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        model = model if isinstance(model, MultimodalVAE) else assembled(model)
        unknown = [name for name in weights or {} if name not in model.modalities]
        known = ", ".join(model.modalities)
        require(not unknown, f"weights of unknown modalities: {', '.join(unknown)}; the model has {known}")
        fits = self.of_mixtures in (None, model.variational_posterior.is_mixture)
        mixture = 'mixture as posterior: VAE("moe", ...) has one'
        needed = mixture if self.of_mixtures else "posterior that is not a mixture: take MmvaeElbo for mixtures"
        require(fits, f"{type(self).__name__} needs a {needed}")
        self.check_weights(model, self.learns_weights)
        require(
            not (self.needs_closed_form_prior_kl and model.prior.is_mixture),
            f"{type(self).__name__} needs KLs to the prior in closed form, which a clustered one does not have: "
            "take IwaeElbo or DregIwaeElbo",
        )
        super().__init__(model)
        self.weights = model.weights | dict(weights or {})

    def scorer(self, batch: Batch) -> Scorer:
        """`score` of a batch."""
        return partial(self.score, self.model, batch)

    def check_weights(self, model: MultimodalVAE, learned: bool) -> None:
        """Raise InputError for a mixture that learns its components' weights, if the gradient of these is left out."""
        fits = learned or not model.variational_strategy.learns_weights
        leaves_out = f"this {type(self).__name__} leaves out the gradient of the weights of the mixture's components"
        require(fits, f"{leaves_out}, which the model learns: take MmvaeElbo with all components, or IwaeElbo")

    @property
    def same_operations(self) -> bool:
        return not self.model.variational_posterior.on_spheres  # rejection sampling takes as many draws as it needs

    def observe_complete(self, inputs: Mapping[str, Tensor] | Batch) -> Batch:
        """The inputs as a batch without a mask.

        Raises:
            InputError: an example lacks a modality.
        """
        batch = self.model.observe(inputs)
        require(
            batch.mask is None or bool(batch.mask.all()),
            f"{type(self).__name__} needs every modality of every example: leave out incomplete ones, or train another "
            "model",
        )
        return replace(batch, mask=None)

    def weighted_sum(self, log_p: Mapping[str, Tensor]) -> Tensor:
        """The sum of lambda_m log p(x_m|z), from {name: log p(x_m|z) (...)}: (...)."""
        return sum(self.weights[name] * x for name, x in log_p.items())

    def elbo(self, subset: str, log_p: Mapping[str, Tensor], kl: Tensor, beta: float, mask: Tensor | None) -> Bound:
        """The ELBO of E log p(x_m|z), {name: (B,)}, and its KL, (B,), with the terms SUBSET/NAME and SUBSET/kl."""
        return bound_of(self.weighted_sum(log_p) - beta * kl, by_modality(subset, {"kl": kl} | dict(log_p)), mask)


def bound_of(value: Tensor, terms: Mapping[str, Tensor], mask: Tensor | None) -> Bound:
    """A bound with 0 for examples without any modality by the mask (B, M), since log p(nothing) = 0."""
    if mask is None:
        return Bound(value, dict(terms))
    has_any = mask.any(dim=1)
    return Bound(torch.where(has_any, value, 0), {name: torch.where(has_any, x, 0) for name, x in terms.items()})


def by_modality(subset: str, log_p: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the terms of a subset: {name: (B,)} -> {SUBSET/NAME: (B,)}."""
    return {f"{subset}/{name}": x for name, x in log_p.items()}
