"""log p(x_m|z) of rows: the one place that knows sets, stacked decoders, missing values, batch norm and memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from weakref import WeakKeyDictionary

from common.data.batches import Batch
from common.encoders_decoders import evaluation_mode, has_batch_norm, outputs, statistics_if, zero_where_absent
from common.errors import require
from common.execution.rows import Rows
from common.likelihoods import log_prob
from common.modalities import DecoderRecord, stack_values
from common.multimodal_vae import MultimodalVAE
from common.subsets import on_device

import torch
from torch import Tensor

# The most samples of z decoded at once: enough to keep a GPU busy and, on a CPU, to use each weight often.
DECODED_AT_ONCE = {"cpu": 2000, "cuda": 20_000}
# The most bytes that a decoder then gives: so that its layers' outputs stay in a CPU's cache, or fit in a GPU's memory.
BYTES = {"cpu": 6 * 2**20, "cuda": 2**28}
FEW = 64  # samples that are decoded at once without a look at their size
Chosen = tuple[Tensor | None, Tensor | None]  # rows (N,), None: all; and which elements they score (N, n), None: all

_bytes_of_a_sample: WeakKeyDictionary[MultimodalVAE, int] = WeakKeyDictionary()


def score(model: MultimodalVAE, batch: Batch, z: Tensor, rows: Rows) -> dict[str, Tensor]:
    """log p(x_m|z) at K samples of each row, z (K, T, B, D), nats: {name: (K, T, B)}, 0 where a row does not score it.

    Of all modalities that the model decodes, but only what is scored is decoded. For a set it is the sum over its
    scored elements.
    """
    nothing, log_p = z.new_zeros(z.shape[:-1]), {}
    for decoder, names in _decoders(model, batch):
        chosen = {name: scoring(model, batch, name, rows, batch.every_row or decoder.stacked) for name in names}
        chosen = {name: (index, elements) for name, (index, elements) in chosen.items() if index is None or len(index)}
        found = _of_stack(model, batch, decoder, z, chosen) if decoder.stacked and chosen else {}
        for name, (index, elements) in chosen.items():
            if not decoder.stacked:
                found[name] = log_prob_at(model, batch, name, *_laid_out(model, batch, name, z, index, elements))
            x = found[name].reshape(len(z), -1, *found[name].shape[2:])
            x = summed_elements(model.modality[name].is_set, x, elements)  # (K, N)
            log_p[name] = (x if index is None else nothing.flatten(1).index_copy(1, index, x)).view_as(nothing)
    return {name: log_p.get(name, nothing) for name in model.modelled}


def _decoders(model: MultimodalVAE, batch: Batch) -> Iterator[tuple[DecoderRecord, list[str]]]:
    """The decoders of a batch's modalities, with what they decode."""
    by_key: dict[str, tuple[DecoderRecord, list[str]]] = {}
    for name in (name for name in model.modelled if name in batch.modalities):
        decoder = model.modality[name].decoder
        by_key.setdefault(decoder.key, (decoder, []))[1].append(name)
    yield from by_key.values()


def scoring(model: MultimodalVAE, batch: Batch, name: str, rows: Rows, whole: bool) -> Chosen:
    """The rows that score a modality.

    Args:
        whole: all rows of the terms that can score it, so that no operation depends on `Rows.scored`.
    """
    columns = model.columns[name].slice
    subsets, scored = rows.subsets[:, columns], rows.scored  # (T, n), (T, B, M)
    terms = subsets.any(dim=1)
    if scored is None and not subsets[terms].all():  # a term scores some elements of a set
        scored = on_device(rows.subsets, rows.given.device)[:, None]
    elements = None if scored is None else scored[..., columns].expand(-1, len(batch), -1).flatten(0, 1)  # (T B, n)
    index = None
    if elements is not None and not whole:
        index = elements.any(dim=-1).nonzero().squeeze(1)
        index = index if len(index) < len(elements) else None
    elif not terms.all():
        by_term = torch.arange(len(terms) * len(batch), device=rows.given.device).view(len(terms), -1).unbind()
        index = torch.cat([by_term[t] for t in terms.nonzero().squeeze(1).tolist()] or [by_term[0][:0]])
    if elements is not None:
        elements = elements if index is None else elements[index]
        elements = None if not whole and elements.all() else elements
    return index, elements


def _laid_out(
    model: MultimodalVAE, batch: Batch, name: str, z: Tensor, index: Tensor | None, elements: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, list[int] | None]:
    """What `log_prob_at` takes, for the rows that are chosen of z (K, T, B, D)."""
    n_terms, b = z.shape[1:3]
    has_value, sizes = elements.any(dim=-1) if elements is not None and batch.every_row else None, None
    if model.training and has_batch_norm(model.decoder[model.modality[name].decoder.key]):
        # as in the papers, its statistics are those of one term
        index = torch.arange(n_terms * b, device=z.device) if index is None else index
        full = batch.every_row or len(index) == n_terms * b  # then no GPU is asked for the numbers
        sizes = [b] * (len(index) // b) if full else (index // b).unique_consecutive(return_counts=True)[1].tolist()
    if index is None:  # an example's values are the same in all terms
        return z.flatten(0, 1), None, None if has_value is None else has_value.view(n_terms, b).any(dim=0), None
    return z.flatten(1, 2).index_select(1, index), index % b, has_value, sizes


def log_prob_at(
    model: MultimodalVAE,
    batch: Batch,
    name: str,
    z: Tensor,
    examples: Tensor | None,
    has_value: Tensor | None = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """log p(x_m|z) of one modality at K samples of N rows, z (K, N, D): (K, N), of a set (K, N, n).

    Args:
        examples: each row's, (N,); None: row i is example i.
        has_value: which rows have values that count, (N,) bool; None: all.
        sizes: of the parts to decode, where the parts matter, as for batch norm; None: what memory holds.
    """
    network = model.decoder[model.modality[name].decoder.key]
    observed = {n: x for n, x in (batch.observed or {}).items() if n == name}
    values = Batch({n: batch.modalities[n] for n in (name, *model.modality[name].given)}, observed=observed)
    found = []
    for rows, at_once in _parts(model, *z.shape[:2], sizes):
        part, statistics = values[rows if examples is None else examples[rows]], nullcontext()
        if has_value is not None:  # absent values may have no density
            part.modalities = {n: zero_where_absent(x, has_value[rows]) for n, x in part.modalities.items()}
            statistics = statistics_if(has_value[rows].any(), network) if sizes else statistics
        x, of_samples = part.modalities[name], []
        with statistics:
            for zs in z[:, rows].split(at_once):
                p = model.decode(zs, [name], part.modalities)[name]
                of_samples.append(log_prob(name, p, x, leading=2, observed=part.observed.get(name)))
        found.append(torch.cat(of_samples))
    return torch.cat(found, dim=1)


def _parts(model: MultimodalVAE, k: int, n: int, sizes: Sequence[int] | None) -> Iterator[tuple[slice, int]]:
    """What is decoded at once of z (K, N, D): rows, and a number of samples."""
    start = 0
    if sizes is None:
        at_once = k * n if k * n <= FEW else samples_at_once(model)
        size = min(n, max(1, at_once // k))
        sizes, k = [size] * (n // size) + [n % size] * (n % size > 0), max(1, at_once // size)
    for size in sizes:
        yield slice(start, start + size), k
        start += size


def summed_elements(is_set: bool, log_p: Tensor, elements: Tensor | None) -> Tensor:
    """The sum over a set's elements that are scored, (..., N, n) -> (..., N); of a plain modality 0 where it is not."""
    if elements is not None:
        log_p = torch.where(elements if is_set else elements.squeeze(-1), log_p, 0)
    return log_p.sum(dim=-1) if is_set else log_p


def _of_stack(
    model: MultimodalVAE, batch: Batch, decoder: DecoderRecord, z: Tensor, chosen: Mapping[str, Chosen]
) -> dict[str, Tensor]:
    """log p(x_m|z), {name: (K, N)}, of modalities that one `StackedDecoder` decodes, each at its own rows."""
    names, flat = decoder.models, z.flatten(1, 2)
    every = torch.arange(flat.shape[1], device=z.device)
    rows = {name: every if index is None else index for name, (index, _) in chosen.items()}
    n = max(map(len, rows.values()))
    padded = torch.stack([_padded(rows.get(name, every[:0]), n) for name in names])  # (S, N)
    # one by one: a GPU would add up the gradients of one row, used several times, in an arbitrary order
    zs = torch.stack([flat.index_select(1, index) for index in padded])  # (S, K, N, D)
    out = outputs(model.decoder[decoder.key], zs.flatten(1, -2)).movedim(1, 0)  # (S, K N, ...)
    p = model.likelihood[names[0]](out.unflatten(1, zs.shape[1:3]))

    def at_rows(values: Mapping[str, Tensor]) -> Tensor:
        stacked = stack_values(names, values, batch.mask, model.modality)  # (B, S, ...)
        return stacked[padded % len(batch), torch.arange(len(names), device=z.device)[:, None]].unsqueeze(1)

    observed = None
    if {*names} & {*(batch.observed or ())}:
        observed = at_rows({name: batch.observed_values(name) for name in names if name in batch.modalities})
    log_p = log_prob(", ".join(names), p, at_rows(batch.modalities), leading=None, observed=observed)  # (S, K, N)
    by_name = zip(names, log_p.unbind(), strict=True)
    return {name: x[:, : len(rows[name])] for name, x in by_name if name in chosen}


def _padded(index: Tensor, n: int) -> Tensor:
    return torch.cat([index, index.new_zeros(n - len(index))])


def samples_at_once(model: MultimodalVAE) -> int:
    """How many samples of z to decode in one batch where there are many.

    Raises:
        InputError: the model is neither on a CPU nor on a CUDA device.
    """
    device = model.device.type
    require(device in BYTES, f"the model is on {device}, and runs on {' or '.join(BYTES)} alone: move it there")
    if model not in _bytes_of_a_sample:
        names = [name for name in model.modelled if not model.modality[name].given]
        with torch.no_grad(), evaluation_mode(model):
            given = model.decoder_outputs(next(model.parameters()).new_zeros(1, model.latent_dim), names)
        _bytes_of_a_sample[model] = max([1, *(x.nbytes for x in given.values())])
    return max(1, min(DECODED_AT_ONCE[device], BYTES[device] // _bytes_of_a_sample[model]))
