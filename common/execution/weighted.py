"""The backward pass of importance-weighted objectives: it decodes with gradients only samples whose weight counts.

On a CPU all samples are scored without gradients first. Most weights of images are negligible; decoding the few that
matter twice is cheaper than gradients of all. Where most samples count, and where decoding again would not give the
same, all are decoded once. Either way a few examples are taken at a time, so that only their activations are held.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from common.data.batches import Batch
from common.encoders_decoders import has_batch_norm, is_repeatable
from common.execution.rows import Rows
from common.execution.score import log_prob_at, samples_at_once, scoring, summed_elements
from common.multimodal_vae import MultimodalVAE

import torch
from torch import Tensor, nn

MAX_SHARE = 0.6  # above this share of samples that count, decoding them first costs more time than it saves
PROBE_EVERY = 16  # one of these examples is decoded first, to see whether most samples count


def backward(objective: nn.Module, batch: Batch, beta: float | Tensor, n: int) -> Any:  # noqa: ANN401
    """Add the gradient of the rows' losses, divided by n, to the parameters' gradients; return the `Bound`.

    The encoders run once. Each part of the batch ends at leaves, the experts' parameters and z, whose gradients then go
    on to the encoders.

    Args:
        objective: an `ImportanceWeighted`.
        n: examples in the batch over all processes.
    """
    params, z, _ = objective.sample(batch)  # z (T, K, B, D)
    roots, bounds, start = (*params, z), [], 0
    leaves = [x.detach().requires_grad_(x.requires_grad) for x in roots]
    known, counts = _scored_first(objective, batch, [x.detach() for x in roots], beta)
    for size in _sizes(objective.model, batch, z, counts):
        examples = slice(start, start + size)
        part, (*of_params, of_z) = batch[examples], [x[..., examples, :] for x in leaves]
        scorer = objective.scorer(part)
        if counts is not None:
            of_part = {name: x[..., examples] for name, x in known.items()}
            scorer = partial(score_again, objective.model, part, known=of_part, counts=counts[..., examples])
        surrogate, bound = objective.surrogate(part, scorer, tuple(of_params), of_z, beta)
        (-surrogate.sum() / n).backward()
        bounds.append(bound.detach())
        start += size
    reached = [(x, leaf.grad) for x, leaf in zip(roots, leaves, strict=True) if leaf.grad is not None]
    if reached:  # frozen encoders have no gradient
        torch.autograd.backward(*zip(*reached, strict=True))
    return bounds[0].joined(bounds)


def score_again(
    model: MultimodalVAE, batch: Batch, z: Tensor, rows: Rows, known: Mapping[str, Tensor], counts: Tensor
) -> dict[str, Tensor]:
    """`score` where log p(x_m|z) is known, {name: (K, T, B)}, with gradients of the samples that count, (K, T, B)."""
    log_p, sample = dict(known), counts.flatten().nonzero().squeeze(1)  # (N,) of K T B
    row = sample % counts[0].numel()  # (N,) of T B
    for name in (name for name in known if name in batch.modalities):
        _, elements = scoring(model, batch, name, rows, whole=True)  # (T B, n): all terms can score all modalities
        here = slice(None) if elements is None else elements[row].any(dim=-1)
        index, row_here = sample[here], row[here]
        if len(index):
            of_samples = log_prob_at(model, batch, name, z.flatten(0, 2)[None, index], row_here % len(batch))
            elements = None if elements is None else elements[row_here]
            of_samples = summed_elements(model.modality[name].is_set, of_samples, elements)[0]
            log_p[name] = known[name].flatten().index_copy(0, index, of_samples).view_as(counts)
    return log_p


@torch.no_grad()
def _scored_first(
    objective: nn.Module, batch: Batch, leaves: list[Tensor], beta: float | Tensor
) -> tuple[dict[str, Tensor], Tensor | None]:
    """log p(x_m|z) of all samples, {name: (K, T, B)}, and which of them count, (K, T, B) bool.

    Nothing and None if most samples count, as far as some examples tell, if decoding again would give other numbers,
    for K = 1, and on a GPU.
    """
    model, z = objective.model, leaves[-1]
    if z.device.type != "cpu" or batch.every_row or z.shape[1] == 1 or not _decodes_again(model, batch):
        return {}, None
    n, found, counting = -(-len(batch) // PROBE_EVERY), [], []
    for examples in (slice(n), slice(n, None)) if len(batch) > n else (slice(n),):
        part, (*of_params, of_z) = batch[examples], [x[..., examples, :] for x in leaves]
        noted: dict[str, Tensor] = {}
        scorer = partial(_noted, noted, objective.scorer(part))
        q, log_w, _ = objective.log_weights(part, scorer, tuple(of_params), of_z, beta)
        counting.append(_counts(objective.coefficients(log_w, q.weights)).transpose(0, 1))
        found.append(noted)
        if counting[0].float().mean() > MAX_SHARE:
            return {}, None
    return {name: torch.cat([x[name] for x in found], dim=-1) for name in found[0]}, torch.cat(counting, dim=-1)


def _noted(noted: dict[str, Tensor], scorer: Any, z: Tensor, rows: Rows) -> dict[str, Tensor]:  # noqa: ANN401
    """What a scorer finds, which `noted` keeps."""
    noted |= scorer(z, rows)
    return noted


def _counts(size: Tensor) -> Tensor:
    """Which samples (T, K, B), by the size of their gradient, change their example's in floating point; all of NaN."""
    return ~(size <= torch.finfo(size.dtype).eps ** 2 * size.amax(dim=(0, 1)))


def _decodes_again(model: MultimodalVAE, batch: Batch) -> bool:
    """Whether log p(x_m|z) of a sample depends on no other sample, and is the same when it is decoded again."""
    decoders = [model.modality[name].decoder for name in model.modelled if name in batch.modalities]
    alone = not any(decoder.stacked for decoder in decoders)
    return alone and (not model.training or all(is_repeatable(model.decoder[decoder.key]) for decoder in decoders))


def _sizes(model: MultimodalVAE, batch: Batch, z: Tensor, counts: Tensor | None) -> list[int]:
    """How many examples to decode at once with gradients: all if batch norm must see all."""
    if model.training and has_batch_norm(model.decoder):
        return [len(batch)]
    at_once = samples_at_once(model)
    if counts is None:
        size = max(1, at_once // (z.shape[0] * z.shape[1]))
        return [min(size, len(batch) - start) for start in range(0, len(batch), size)]
    return (counts.sum(dim=(0, 1)).cumsum(0) // at_once).unique_consecutive(return_counts=True)[1].tolist()
