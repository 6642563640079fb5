"""Splits of examples: what is held out for validation, and which examples keep their pairing."""

from dataclasses import replace

from common.data.batches import Examples
from common.errors import require

import torch
from torch import Tensor


def hold_out(examples: Examples, n: int | None) -> tuple[Examples, Examples | None]:
    """Split off the last n examples for validation.

    Args:
        n: None is a sixth of the examples (10,000 of MNIST), at least one; 0 is none.

    Returns:
        the training examples, and the validation examples or None.

    Raises:
        InputError: there is no example, or n leaves none to train on.
    """
    require(len(examples) > 0, "there is no training example: give another --data-dir")
    n = min(max(1, len(examples) // 6), len(examples) - 1) if n is None else n
    require(n < len(examples), f"--valid {n} leaves no training example: give fewer than {len(examples)}")
    return examples.take(slice(len(examples) - n)), examples.take(slice(len(examples) - n, None)) if n else None


def only_complete(examples: Examples) -> tuple[Examples, Tensor | slice]:
    """The examples that have all modalities by their mask, and their indices, (n,) or a slice for all.

    `common.model_data.modelled` makes a mask of missing values.

    Raises:
        InputError: there are none.
    """
    if examples.mask is None:
        return examples, slice(None)
    rows = examples.mask.all(dim=1).nonzero().squeeze(1)
    none = f"none of {len(examples):,} examples has all modalities"
    require(len(rows) > 0, f"{none}: take more of them, or complete ones")
    return replace(examples.take(rows), mask=None, joint_only=None), rows


def draw_paired(examples: Examples, fraction: float, seed: int) -> Tensor:
    """Draw a random fraction of the examples, those that keep their pairing: their indices, (n,) int64.

    Raises:
        InputError: a fraction above 0 that leaves no pair.
    """
    n = len(examples)
    require(
        fraction == 0 or round(fraction * n) > 0,
        f"--paired-fraction {fraction:g} leaves no pair of {n:,} examples: give {1 / n:.2g} or more, or 0",
    )
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: round(fraction * n)]


def unpair(examples: Examples, fraction: float, seed: int, unimodal: bool = True) -> Examples:
    """Keep the pairing of a random fraction of the examples (weak supervision, Wu & Goodman 2018).

    Unpaired examples contribute only their unimodal ELBOs: the objective is the mean of ELBO(all) over the pairs plus
    the mean of ELBO({m}) over all examples, paired or not. So each of the N examples becomes M + 1 rows: a pair that
    counts only in the joint term (the pairs are repeated in turn), and a row for each modality alone. A batch of B such
    examples has the terms of B paired examples.

    Args:
        seed: decides which examples keep their pairing.
        unimodal: whether the objective has terms of one modality (`MultimodalObjective.unimodal`). If not, only the
            modalities of unpaired examples count alone; the single rows of paired ones are left without any modality.

    Returns:
        N examples of M + 1 rows (M rows if there is no pair), without copies of the data; the examples themselves if
        all are paired.
    """
    n, m = len(examples), len(examples.modalities | examples.derived)
    paired = draw_paired(examples, fraction, seed)
    if len(paired) == n:
        return examples
    rows = torch.arange(n)[:, None].expand(n, m)
    mask = torch.eye(m, dtype=torch.bool).repeat(n, 1, 1)
    if not unimodal:
        mask[paired] = False
    if len(paired) > 0:
        rows = torch.cat([paired.repeat(-(-n // len(paired)))[:n, None], rows], dim=1)  # (N, M + 1)
        mask = torch.cat([torch.ones(n, 1, m, dtype=torch.bool), mask], dim=1)  # (N, M + 1, M)
    by_name = {name: rows if examples.rows is None else examples.rows[name][rows] for name in examples.modalities}
    joint_only = mask.all(dim=-1)
    if examples.mask is not None:
        mask &= examples.mask[rows]
    return replace(examples, rows=by_name, mask=mask, joint_only=joint_only)
