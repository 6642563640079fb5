"""What all objectives share: a bound and its terms, the weights, the loss, and log-likelihoods of decoded samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.data.batches import Batch
from common.encoders_decoders import zero_where_absent
from common.errors import require
from common.likelihoods import log_prob
from common.modalities import stack_values
from common.multimodal_vae import MultimodalVAE
from common.plain_pieces import assembled

DECODED_NUMBERS = 2_000_000  # most numbers that a decoder gives at once on a CPU: larger outputs wait for memory


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

    def zero_without_modalities(self, mask: Tensor | None) -> "Bound":
        """0 for examples without any modality by the mask (B, M), since log p(nothing) = 0."""
        if mask is None:
            return self
        has_any = mask.any(dim=1)
        return Bound(
            torch.where(has_any, self.value, 0), {name: torch.where(has_any, x, 0) for name, x in self.terms.items()}
        )

    def detach(self) -> "Bound":
        """The same without gradients."""
        return Bound(self.value.detach(), {name: term.detach() for name, term in self.terms.items()})


class Objective(nn.Module):
    """A model and its loss; a subclass has `bound(inputs, beta)`.

    Args:
        model: the model to train.
    """

    capturable = False  # every batch takes the same operations, so that a step can be a CUDA graph

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Tensor:
        """The loss to minimise, a scalar, nats."""
        return self.loss(inputs, beta)[0]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        """The loss, minus the bound averaged over the batch (a scalar, nats), and that bound."""
        bound = self.bound(inputs, beta)
        return -bound.value.mean(), bound

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """Add the gradient of the rows' losses, divided by n, to the parameters' gradients.

        Returns:
            the bound, without gradient.
        """
        loss, bound = self.loss(inputs, beta)
        (loss * (len(bound.value) / n)).backward()
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
    random_subsets = False  # whether each call draws other subsets of the modalities
    of_mixtures: bool | None = None  # whether the posterior has to be a mixture, or must not be one; None: any
    has_kl_to_prior = True  # which needs a prior of one component

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        model = model if isinstance(model, MultimodalVAE) else assembled(model)
        unknown = [name for name in weights or {} if name not in model.modalities]
        known = ", ".join(model.modalities)
        require(not unknown, f"weights of unknown modalities: {', '.join(unknown)}; the model has {known}")
        fits = self.of_mixtures in (None, model.variational_posterior.is_mixture)
        mixture = 'mixture as posterior: VAE("moe", ...) has one'
        needed = mixture if self.of_mixtures else "posterior that is not a mixture: take MmvaeElbo for mixtures"
        require(fits, f"{type(self).__name__} needs a {needed}")
        clustered = model.prior.is_mixture and not model.variational_posterior.is_energy_based
        require(
            not (self.has_kl_to_prior and clustered),
            f"{type(self).__name__} needs KLs to the prior in closed form, which a clustered one does not have: "
            "take IwaeElbo or DregIwaeElbo",
        )
        super().__init__(model)
        self.weights = model.weights | dict(weights or {})

    @property
    def capturable(self) -> bool:
        return not self.random_subsets and not self.model.variational_posterior.uses_rejection

    def complete(self, inputs: Mapping[str, Tensor] | Batch) -> Batch:
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

    def present(self, name: str, batch: Batch, has_weight: Tensor) -> Tensor | None:
        """Where p(x_m|z) is scored in a mixture: (T, ..., B), for a set (T, ..., B, n).

        Args:
            has_weight: whether a component has weight, (T, ..., B) bool.

        Returns:
            None if the batch has no mask.
        """
        if batch.mask is None:
            return None
        modality = self.model.modality[name]
        scorable = modality.present(self.model.scorable(batch.mask))
        return (has_weight.unsqueeze(-1) if modality.is_set else has_weight) & scorable

    def log_likelihoods(
        self, z: Mapping[str, Tensor], batch: Batch, scored: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor]:
        """log p(x_m|z_m) of several modalities, each at its own z, nats; 0 where it is not scored.

        Args:
            z: {name: (T, ..., B, D)}; T may differ.
            scored: {name: (T, ..., B) bool, for a set (T, ..., B, n), or None for everywhere}.

        Returns:
            {name: (T, ..., B)}, for a set the sum over its scored elements; without modalities that have no decoder.
        """
        log_p = {}
        for name in z:
            modality = self.model.modality[name]
            if modality.decoder is None or name in log_p:
                continue
            if modality.stacked:
                stack = {name: z[name] for name in modality.decoded_with if name in z}
                log_p |= self._log_likelihoods_of_stack(modality.decoded_with, stack, batch, scored)
            else:
                log_p[name] = self.log_likelihood(name, z[name], batch, scored[name])
        return log_p

    def with_log_likelihoods(self, bound: Bound, subset: str, log_p: Mapping[str, Tensor]) -> Bound:
        """The bound plus the weighted log p(x_m|z) of each modality, (B,), as terms SUBSET/NAME; 0 if not given."""
        value, terms = bound.value, dict(bound.terms)
        for name in self.model.modelled:
            terms[f"{subset}/{name}"] = log_p[name] if name in log_p else torch.zeros_like(bound.value)
            value = value + self.weights[name] * terms[f"{subset}/{name}"]
        return Bound(value, terms)

    def _log_likelihoods_of_stack(
        self, names: tuple[str, ...], z: Mapping[str, Tensor], batch: Batch, scored: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor]:
        """See `log_likelihoods`: of modalities that one `StackedDecoder` decodes, all in one product."""
        n_terms = max(map(len, z.values()))
        filler = next(iter(z.values()))[:1]
        rows = [z.get(name, filler) for name in names]
        rows = [torch.cat([x, x[:1].expand(n_terms - len(x), *x.shape[1:])]) for x in rows]
        x = stack_values(names, batch, self.model.modality).movedim(1, 0)  # (n, B)
        x = x.view(len(names), *[1] * (rows[0].dim() - 2), *x.shape[1:])
        log_p = self.model.decode_stack(names, torch.stack(rows)).log_prob(x)  # (n, T, ..., B)
        by_name = zip(names, log_p.unbind(), strict=True)  # unbound at once: the gradient of each log_p[i] is as large
        log_p = {name: x[: len(z[name])] for name, x in by_name if name in z}
        return {name: x if scored[name] is None else torch.where(scored[name], x, 0) for name, x in log_p.items()}

    def log_likelihood(self, name: str, z: Tensor, batch: Batch, scored: Tensor | None = None) -> Tensor:
        """log p(x_m|z) of one modality, see `log_likelihoods`.

        Only what is scored is decoded, and all terms in one batch. The exception is a decoder with batch norm in
        training: as in the papers, its statistics are those of one term.
        """
        if self.model.training and len(z) > 1 and self.model.decoder_has_batch_norm(name):
            scored = [None] * len(z) if scored is None else scored.split(1)
            return torch.cat([self.log_likelihood(name, z[t : t + 1], batch, s) for t, s in enumerate(scored)])
        modality = self.model.modality[name]
        values = {n: x for n, x in batch.modalities.items() if n in (name, *modality.given)}
        if scored is None or (not batch.every_row and scored.all()):
            log_p = self._log_prob(name, z, values)
            return log_p.sum(dim=-1) if modality.is_set else log_p
        scored = scored if modality.is_set else scored.unsqueeze(-1)  # (T, ..., B, n)
        if batch.every_row:
            return self._log_likelihood_of_every_row(name, z, values, scored)
        return self._log_likelihood_of_scored_rows(name, z, values, scored)

    def _log_likelihood_of_every_row(
        self, name: str, z: Tensor, values: Mapping[str, Tensor], scored: Tensor
    ) -> Tensor:
        present = scored.any(dim=-1).flatten(0, -2).any(dim=0)  # (B,)
        values = {n: zero_where_absent(x, present) for n, x in values.items()}
        log_p = self._log_prob(name, z, values).reshape(scored.shape)
        return torch.where(scored, log_p, 0).sum(dim=-1)

    def _log_likelihood_of_scored_rows(
        self, name: str, z: Tensor, values: Mapping[str, Tensor], scored: Tensor
    ) -> Tensor:
        log_p, any_scored = z.new_zeros(z.shape[:-1]), scored.any(dim=-1)  # (T, ..., B)
        if any_scored.any():  # distributions refuse empty batches
            rows = any_scored.nonzero(as_tuple=True)  # each (N,)
            of_rows = {n: x[rows[-1]] for n, x in values.items()}
            density = self._log_prob(name, z[rows], of_rows).reshape(len(rows[0]), -1)  # (N, n)
            log_p[rows] = torch.where(scored[rows], density, 0).sum(dim=-1)
        return log_p

    def _log_prob(self, name: str, z: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """log p(x_m|z) of z (..., B, D) and values (B, ...): (..., B), for a set (..., B, n)."""
        undivided = z.device.type != "cpu" or (self.model.training and self.model.decoder_has_batch_norm(name))
        n_numbers = z[..., 0, 0].numel() * values[name][0].numel()  # that one example's samples decode to
        size = len(values[name]) if undivided else max(1, DECODED_NUMBERS // n_numbers)
        log_p = []
        for start in range(0, len(values[name]), size):
            rows = slice(start, start + size)
            part, z_part = {name: x[rows] for name, x in values.items()}, z[..., rows, :]
            p = self.model.decode(z_part, [name], part)[name]
            log_p.append(log_prob(name, p, part[name], z.dim() - 1))
        return torch.cat(log_p, dim=z.dim() - 2)
