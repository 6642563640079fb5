"""What all objectives share: a bound and its terms, the weights, the loss, and scoring what is decoded."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.data import Batch
from common.errors import require
from common.multimodal_vae import MultimodalVAE, assembled, zero_where_absent


class Bound(NamedTuple):
    """value: what is maximised, (B,); terms: its parts without weights and beta, nats, {name: (B,)}.

    A term is named SUBSET/MODALITY or SUBSET/kl; the subset is "joint", a modality's name, of a set's element NAME[i],
    "mixture", or "subset1", "subset2" for the random ones. A term is zero for an example that lacks it: a batch's mean
    is its share of the loss.
    """

    value: Tensor
    terms: dict[str, Tensor]

    def of_something(self, mask: Tensor | None) -> "Bound":
        """0 for examples that have nothing, by the mask (B, M), since log p of nothing is."""
        if mask is None:
            return self
        some = mask.any(dim=1)
        return Bound(
            torch.where(some, self.value, 0), {name: torch.where(some, x, 0) for name, x in self.terms.items()}
        )

    def detach(self) -> "Bound":
        return Bound(self.value.detach(), {name: term.detach() for name, term in self.terms.items()})


class Objective(nn.Module):
    """What all bounds share: the model and the loss.

    Args:
        model: the model that the bound, a subclass's `bound(inputs, beta)`, is of.
    """

    capturable = False  # whether a step takes the same operations for every batch, so that it can be a CUDA graph

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Tensor:
        """The loss to minimise."""
        return self.loss(inputs, beta)[0]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        """The loss, minus the bound averaged over the batch, and that bound."""
        bound = self.bound(inputs, beta)
        return -bound.value.mean(), bound

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """Add the gradient of the rows' losses, divided by n, to the parameters'; the bound, without gradient."""
        loss, bound = self.loss(inputs, beta)
        (loss * (len(bound.value) / n)).backward()
        return bound.detach()


class MultimodalObjective(Objective):
    """A bound of modalities.

    Args:
        model: the model; its `weights` are the lambdas unless others are given. Also its six pieces in a plain
            ModuleDict (`common.multimodal_vae.assembled`).
        weights: {name: lambda}.
    """

    unimodal = False  # whether each modality that an example has counts alone too

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        model = assembled(model) if isinstance(model, nn.ModuleDict) else model
        unknown = [name for name in weights or {} if name not in model.modalities]
        require(not unknown, f"weights of unknown modalities: {', '.join(unknown)}")
        super().__init__(model)
        self.weights = model.weights | dict(weights or {})

    @property
    def random_subsets(self) -> bool:
        """Whether other subsets of the modalities are drawn for each call."""
        return False

    @property
    def capturable(self) -> bool:
        return not self.random_subsets and not self.model.variational_posterior.rejects

    def scored(self, name: str, batch: Batch, where: Tensor) -> Tensor | None:
        """Where, (T, ..., B), a modality that is there counts: what `log_prob` takes; None for everywhere."""
        if batch.mask is None:
            return None
        mask = batch.mask[:, self.model.columns[name]]  # (B,), of a set (B, n)
        return (where if mask.dim() == 1 else where.unsqueeze(-1)) & mask

    def log_probs(
        self, z: Mapping[str, Tensor], batch: Batch, scored: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor]:
        """log p(x_m|z_m) of several modalities, {name: (T, ..., B)}, each as `log_prob` has it, those alike in one.

        Args:
            z: {name: (T, ..., B, D)}; T may differ.
            scored: {name: (T, ..., B) bool, or None for everywhere}.
        """
        found = {}
        for names in self.model.alike(tuple(z)):
            if len(names) == 1:
                found |= {name: self.log_prob(name, z[name], batch, scored[name]) for name in names}
                continue
            n_terms = max(len(z[name]) for name in names if name in z)
            filler = next(iter(z.values()))[:1]
            rows = [z.get(name, filler) for name in names]
            rows = [torch.cat([x, x[:1].expand(n_terms - len(x), *x.shape[1:])]) for x in rows]
            x = self.model.side_by_side(names, batch).movedim(1, 0)  # (n, B)
            x = x.view(len(names), *[1] * (rows[0].dim() - 2), *x.shape[1:])
            log_p = self.model.decode_alike(names, torch.stack(rows)).log_prob(x)  # (n, T, ..., B)
            for name, of_name in zip(names, log_p.unbind(), strict=True):
                if name in z:
                    of_name = of_name[: len(z[name])]
                    found[name] = of_name if scored[name] is None else torch.where(scored[name], of_name, 0)
        return found

    def log_prob(self, name: str, z: Tensor, batch: Batch, scored: Tensor | None = None) -> Tensor:
        """log p(x_m|z) for z (T, ..., B, D): (T, ..., B), 0 where it is not scored, (T, ..., B) bool.

        Of a set of n elements the sum over those that are scored, (T, ..., B, n) bool.

        Only what is scored is decoded, all terms in one batch, but by a decoder with batch norm in training: its
        statistics are to be those of one term, as in the papers.
        """
        if self.training and len(z) > 1 and self.model.has_batch_norm(name):
            scored = [None] * len(z) if scored is None else scored.split(1)
            return torch.cat([self.log_prob(name, z[t : t + 1], batch, s) for t, s in enumerate(scored)])
        is_set = isinstance(self.model.columns[name], slice)
        if scored is None or (not self.model.every_row and scored.all()):
            log_p = self.model.decode(z, [name], batch.modalities)[name].log_prob(batch.modalities[name])
            return log_p.sum(dim=-1) if is_set else log_p
        elements = scored if is_set else scored.unsqueeze(-1)  # (T, ..., B, n)
        somewhere = elements.any(dim=-1)
        if self.model.every_row:
            present = somewhere.flatten(0, -2).any(dim=0)
            xs = {name: zero_where_absent(x, present) for name, x in batch.modalities.items()}
            log_p = self.model.decode(z, [name], xs)[name].log_prob(xs[name])
            return torch.where(elements, log_p if is_set else log_p.unsqueeze(-1), 0).sum(dim=-1)
        log_p = z.new_zeros(z.shape[:-1])
        if somewhere.any():  # distributions refuse empty batches
            rows = somewhere.nonzero(as_tuple=True)  # each (N,)
            x = {n: x[rows[-1]] for n, x in batch.modalities.items()}
            of_rows = self.model.decode(z[rows], [name], x)[name].log_prob(x[name])  # (N,), of a set (N, n)
            log_p[rows] = torch.where(scored[rows], of_rows, 0).sum(dim=-1) if is_set else of_rows
        return log_p
