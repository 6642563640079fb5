"""Rows: the grid of terms and examples that an objective scores."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from common.data.batches import Batch
from common.multimodal_vae import MultimodalVAE
from common.subsets import on_device

import torch
from torch import Tensor


class Rows(NamedTuple):
    """T terms, such as the ELBOs of a sum or the components of a mixture, of B examples.

    names: of the terms; empty where nobody asks.
    subsets: the modalities, and elements of sets, that each term can score, (T, M) bool on the CPU.
    scored: what it scores of each example, (T, B, M) bool, a part of `subsets`; None: what `subsets` says.
    given: the experts that the posterior of an ELBO sees, (T, 1, M), or (T, B, M) if examples lack some.
    """

    names: Sequence[str]
    subsets: Tensor
    scored: Tensor | None
    given: Tensor


def rows_of(model: MultimodalVAE, batch: Batch, subsets: Mapping[str, Tensor], drawn: Tensor | None = None) -> Rows:
    """The rows of terms that give and score subsets of the modalities, cut to those that an example has.

    Terms of an incomplete example that are equal count once: of these the first one that is not cut stays, else the
    first. A complete example has a term for each random subset, also where two are equal. A row with `Batch.joint_only`
    has no terms of single modalities.

    Args:
        subsets: {name: (M,) bool}, on the CPU; all but "joint" are single modalities.
        drawn: random subsets too, (K, M) bool, on the batch's device.
    """
    names, table = [*subsets], torch.stack([*subsets.values()])  # (T, M)
    asked = on_device(table, model.device)
    if drawn is not None:
        names += [f"subset{i + 1}" for i in range(len(drawn))]
        # to read what was drawn would make a GPU wait, and no CUDA graph can: all modalities are then decoded
        read = torch.ones(drawn.shape, dtype=torch.bool) if batch.every_row else drawn.cpu()
        table, asked = torch.cat([table, read]), torch.cat([asked, drawn])
    asked = asked[:, None]  # (T, 1, M)
    if batch.mask is None:
        scored = asked.expand(-1, len(batch), -1) if drawn is not None and batch.every_row else None
        return Rows(names, table, scored, asked)
    given = asked & batch.mask  # (T, B, M)
    order = torch.arange(len(given), device=given.device)[:, None] + len(given) * (given != asked).any(dim=-1)  # (T, B)
    complete = batch.mask.all(dim=-1)
    has_term = [torch.ones_like(complete)] * len(given)
    for t in (table.sum(dim=1) > 1).nonzero().squeeze(1).tolist():  # a single one without its modality scores nothing
        earlier = ((given == given[t]).all(dim=-1) & (order < order[t])).any(dim=0)
        has_term[t] = ~earlier | complete
    if batch.joint_only is not None:
        single = [name in subsets and name != "joint" for name in names]
        has_term = [x & ~batch.joint_only if alone else x for x, alone in zip(has_term, single, strict=True)]
    return Rows(names, table, given & torch.stack(has_term)[..., None] & model.scorable(batch.mask), given)


def rows_where(model: MultimodalVAE, batch: Batch, where: Tensor, subsets: Tensor | None = None) -> Rows:
    """The rows of terms, such as a mixture's components, that score what an example has, or subsets of it.

    Args:
        where: the rows that count, (T, B, 1 or M) bool. If no example lacks a modality, all of (T, B, 1) count.
        subsets: (T, M) bool, on the CPU; None: all.
    """
    subsets = torch.ones(len(where), model.n_columns, dtype=torch.bool) if subsets is None else subsets
    asked = on_device(subsets, where.device)[:, None]  # (T, 1, M)
    if batch.mask is None:
        return Rows((), subsets, None if where.shape[-1] == 1 else where & asked, asked)
    return Rows((), subsets, where & asked & model.scorable(batch.mask), asked)
