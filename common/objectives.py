r"""The papers' bounds.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling it gives the scalar loss. With
all weights and beta at 1 the bound's value is in nats and bounds what the class says. Shared notation:

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from common.data import Batch, observe
from common.errors import require
from common.models import MultimodalVAE
from common.subsets import joint_subset, mvae_subsets


class Bound(NamedTuple):
    """value: what is maximised, (B,); terms: its parts without weights and beta, nats, {name: (B,)}.

    A term is named SUBSET/MODALITY or SUBSET/kl; the subset is "joint", a modality's name, or "subset1", "subset2"
    for the random ones. A term is zero for an example that lacks it: a batch's mean is the term's share of the loss.
    """

    value: Tensor
    terms: dict[str, Tensor]


class SumOfElbos(nn.Module):
    """A sum of ELBO(S), one sample of z each, over the subsets that a child's `subsets()` names, (T, M) bool.

    An example that lacks modalities contributes ELBO(S and what it has), each once: a row of one modality carries
    its unimodal ELBO and nothing else. Every encoder runs once, and a decoder decodes only what is scored, all terms
    in one batch.

    Args:
        model: the model; its `weights` are the lambdas unless others are given.
        weights: {name: lambda}.
    """

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        unknown = [name for name in weights or {} if name not in model.modalities]
        require(not unknown, f"weights of unknown modalities: {', '.join(unknown)}")
        self.model = model
        self.weights = model.weights | dict(weights or {})

    def forward(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Tensor:
        """The loss to minimise."""
        return self.loss(inputs, beta)[0]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        """The loss, minus the bound averaged over the batch, and that bound."""
        bound = self.bound(inputs, beta)
        return -bound.value.mean(), bound

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of ELBO(S) of each example, (B,), with the KLs weighted by beta."""
        batch = observe(inputs, self.model.modalities)
        subsets = self.subsets()  # (T, M)
        names = self._subset_names(subsets)
        given = subsets.to(next(iter(batch.modalities.values())).device)[:, None]  # (T, 1, M)
        scored = None
        if batch.mask is not None:
            whole, given = given, given & batch.mask  # (T, B, M)
            scored = given & ~_repeated(whole, given)[..., None]
        q = self.model.fuse(self.model.encode(batch), given)
        z = q.rsample()  # (T, B, D)
        kl = kl_divergence(q, self.model.prior())  # (T, B)
        if scored is not None:
            kl = torch.where(scored.any(dim=-1), kl, 0)
        value = -beta * kl.sum(dim=0)
        terms = {f"{name}/kl": kl[t] for t, name in enumerate(names)}
        for m, name in enumerate(self.model.modalities):
            where = subsets[:, m].nonzero().squeeze(1).tolist()  # the terms that score this modality
            log_p = torch.zeros_like(kl[: len(where)])  # (T_m, B)
            if name in batch.modalities and where:
                x, z_m = batch.modalities[name], torch.stack([z[t] for t in where])
                if scored is None:
                    log_p = self.model.decode(z_m, [name])[name].log_prob(x)
                elif scored[where, :, m].any():  # distributions refuse empty batches
                    rows = scored[where, :, m].nonzero(as_tuple=True)  # (N,), (N,)
                    log_p[rows] = self.model.decode(z_m[rows], [name])[name].log_prob(x[rows[1]])
            value = value + self.weights[name] * log_p.sum(dim=0)
            terms |= {f"{names[t]}/{name}": log_p[i] for i, t in enumerate(where)}
        return Bound(value, self._complete(terms, names))

    def _subset_names(self, subsets: Tensor) -> list[str]:
        names, n_random = [], 0
        for subset in subsets:
            if subset.all():
                names.append("joint")
            elif subset.sum() == 1:
                names.append(self.model.modalities[int(subset.nonzero())])
            else:
                n_random += 1
                names.append(f"subset{n_random}")
        return names

    def _complete(self, terms: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
        """All the names that random subsets could have brought, so that a run's metrics have the same at each step."""
        random = [name for name in names if name not in ("joint", *self.model.modalities)]
        nothing = torch.zeros_like(next(iter(terms.values())))
        return {f"{subset}/{name}": nothing for subset in random for name in self.model.modalities} | terms


class StandardElbo(SumOfElbos):
    """ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014)."""

    def subsets(self) -> Tensor:
        return joint_subset(len(self.model.modalities))


class MvaeElbo(SumOfElbos):
    r"""MVAE's sub-sampled objective, ELBO(all) + sum_m ELBO({m}) + sum_{j=1..K} ELBO(S_j).

    Wu & Goodman 2018, eq. 5; S_j are K random subsets of size 2 .. M - 1, drawn anew at each call
    (`common.subsets.random_subsets`). A lower bound on the sum of the corresponding log p(x_S).

    Args:
        K: number of random subsets (`--approx-m`); needs three modalities.
        generator: draws them.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 0,
        weights: Mapping[str, float] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, weights)
        self.K = K
        self.generator = generator

    def subsets(self) -> Tensor:
        return mvae_subsets(len(self.model.modalities), self.K, self.generator)


def _repeated(whole: Tensor, given: Tensor) -> Tensor:
    """Terms (T, B) to leave out: missing modalities make them equal to another one of the same example.

    Of equal ones a term of its own stays before a reduced one, else the first.

    Args:
        whole: the subsets, (T, 1, M).
        given: what an example has of them, (T, B, M).
    """
    reduced = (given != whole).any(dim=-1)  # (T, B)
    same = (given[:, None] == given[None]).all(dim=-1)  # (T, T, B)
    earlier = torch.ones(len(given), len(given), dtype=torch.bool, device=given.device).tril(-1)[..., None]
    return reduced & (same & (earlier | ~reduced)).any(dim=1)
