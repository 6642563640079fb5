"""log p(x_m|z) of a batch: the one place that knows masks, sets, stacked decoders, batch norm and the memory."""

from collections.abc import Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from common.data.batches import Batch
from common.encoders_decoders import has_batch_norm, outputs, statistics_if, zero_where_absent
from common.likelihoods import log_prob, log_prob_of_observed
from common.modalities import stack_values
from common.multimodal_vae import MultimodalVAE
from common.subsets import on_device

# The most samples of z decoded at once: enough to keep a GPU busy and, on a CPU, to use each weight often.
DECODED_AT_ONCE = {"cpu": 2000, "cuda": 20_000}
# The most bytes in one layer's output: so that it stays in a CPU's cache, and that all layers' fit in a GPU's memory.
LAYER_BYTES = {"cpu": 2**24, "cuda": 2**30}
FEW = 64  # samples that are decoded at once without a look at the layers

_largest_outputs: WeakKeyDictionary[MultimodalVAE, int] = WeakKeyDictionary()


class Decoder:
    """log p(x_m|z) of a batch's modalities, nats, at given z.

    Only what is scored is decoded, and all terms in one batch. The exception is a decoder with batch norm in training:
    as in the papers, its statistics are those of one term.

    Args:
        model: decodes z.
        batch: has the values x_m, and says where they are present.
    """

    def __init__(self, model: MultimodalVAE, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.scorable = None if batch.mask is None else model.scorable(batch.mask)  # (B, M)
        self._with_batch_norm: dict[str, bool] = {}

    def __call__(self, z: Tensor, terms: Tensor | None = None, where: Tensor | None = None) -> dict[str, Tensor]:
        """Score samples of T terms, such as those of an ELBO or the components of a mixture.

        Args:
            z: (T, ..., B, D).
            terms: which of the M modalities, and elements of sets, each term scores, (T, M) bool on the CPU; None: all.
            where: where it scores them, (T, ..., B, M or 1) bool; None: wherever an example has them.

        Returns:
            {name: (T, ..., B)} of all modalities that the model decodes, 0 where one is not scored. For a set it is the
            sum over the scored elements.
        """
        z_by_term = z.unbind()  # at once: the gradient of each z[t] would be as large as z
        zero, log_p = z.new_zeros(z.shape[1:-1]), {}
        for names in self.decoded_together():
            used = {name: self._terms_of(name, terms, len(z)) for name in names}
            used = {name: indices for name, indices in used.items() if indices}
            z_of = {
                name: z if len(indices) == len(z) else torch.stack([z_by_term[t] for t in indices])
                for name, indices in used.items()
            }
            scored = {name: self.scored(name, z.dim(), terms, where, indices) for name, indices in used.items()}
            stacked = len(names) > 1 and bool(used)
            found = self._of_stack(z_of, scored) if stacked else {}
            for name, indices in used.items():
                values = found[name] if stacked else self.of_modality(name, z_of[name], scored[name])
                if len(indices) < len(z):
                    by_term = dict(zip(indices, values.unbind(), strict=True))
                    values = torch.stack([by_term.get(t, zero) for t in range(len(z))])
                log_p[name] = values
        return {name: log_p[name] if name in log_p else z.new_zeros(z.shape[:-1]) for name in self.model.modelled}

    def decoded_together(self) -> list[tuple[str, ...]]:
        """The batch's modelled modalities; those of one `StackedDecoder` in one group."""
        groups = {}
        for name in (name for name in self.model.modelled if name in self.batch.modalities):
            decoder = self.model.modality[name].decoder
            groups.setdefault(decoder.key if decoder.stacked else name, []).append(name)
        return [tuple(names) for names in groups.values()]

    def _terms_of(self, name: str, terms: Tensor | None, n: int) -> list[int]:
        """The indices of the n terms that score a modality."""
        if terms is None:
            return list(range(n))
        return terms[:, self.model.modality[name].columns.slice].any(dim=1).nonzero().squeeze(1).tolist()

    def scored(
        self, name: str, dim: int, terms: Tensor | None, where: Tensor | None, used: Sequence[int]
    ) -> Tensor | None:
        """Where a modality is scored in some terms, (B, n) or (T, ..., B, n), n = 1 for a plain one; None: everywhere.

        Args:
            dim: the number of dimensions of z (T, ..., B, D).
            terms, where: see `__call__`; used: the indices of the terms.
        """
        columns = self.model.modality[name].columns.slice
        scored = None if self.scorable is None else self.scorable[:, columns]
        if where is not None:
            where = where if where.shape[-1] == 1 else where[..., columns]
            if len(used) < len(where):  # an index would be a copy to a GPU, see `on_device`
                where = torch.stack([where[t] for t in used])
            scored = where if scored is None else where & scored
        elements = None if terms is None else terms[used, columns]  # (T, n)
        if elements is not None and not elements.all():
            elements = on_device(elements, self.model.device).view(len(elements), *[1] * (dim - 2), -1)
            scored = elements if scored is None else elements & scored
        return scored

    def of_modality(self, name: str, z: Tensor, scored: Tensor | None) -> Tensor:
        """log p(x_m|z) of one modality, (T, ..., B), at z (T, ..., B, D), where it is scored (`scored`)."""
        if scored is None or (not self.batch.every_row and scored.all()):
            scored = None
        else:
            scored = scored.expand(*z.shape[:-1], -1)  # (T, ..., B, n)
        if len(z) > 1 and self._has_batch_norm(name):
            by_term = zip(z.split(1), [None] * len(z) if scored is None else scored.split(1), strict=True)
            return torch.cat([self._of_term(name, z_t, scored_t) for z_t, scored_t in by_term])
        if scored is None:
            return self._summed(name, self._log_prob(name, z, self._values(name)))
        if self.batch.every_row:
            present = scored.any(dim=-1).flatten(0, -2).any(dim=0)  # (B,)
            values = self._values(name)
            values.modalities = {n: zero_where_absent(x, present) for n, x in values.modalities.items()}
            return self._summed(name, self._log_prob(name, z, values), scored)
        rows = scored.any(dim=-1).nonzero(as_tuple=True)  # each (N,)
        log_p = z.new_zeros(z.shape[:-1])
        if not len(rows[0]):  # distributions refuse empty batches
            return log_p
        return log_p.index_put(rows, self.of_rows(name, z[rows], rows[-1], scored[rows]))

    def _of_term(self, name: str, z: Tensor, scored: Tensor | None) -> Tensor:
        """`of_modality` of one term, by whose samples batch norm's running statistics change if it scores any."""
        if scored is None or not self.batch.every_row:
            return self.of_modality(name, z, scored)
        with statistics_if(scored.any(), self.model.decoder[self.model.modality[name].decoder.key]):
            return self.of_modality(name, z, scored)

    def of_rows(self, name: str, z: Tensor, examples: Tensor, scored: Tensor | None) -> Tensor:
        """log p(x_m|z) at z (N, D), each of one of the examples, (N,), where it is scored, (N, n): (N,)."""
        values = self._values(name)[examples]
        return self._summed(name, self._log_prob(name, z.unsqueeze(0), values), scored).squeeze(0)

    def _summed(self, name: str, log_p: Tensor, scored: Tensor | None = None) -> Tensor:
        """The sum over a set's elements that are scored, (..., n) -> (...); of a plain modality 0 where it is not."""
        is_set = self.model.modality[name].is_set
        if scored is not None:
            log_p = torch.where(scored if is_set else scored.squeeze(-1), log_p, 0)
        return log_p.sum(dim=-1) if is_set else log_p

    def _values(self, name: str) -> Batch:
        """The values of a modality and of those that its decoder is given, without a mask."""
        seen, observed = (name, *self.model.modality[name].given), self.batch.observed or {}
        values = {other: x for other, x in self.batch.modalities.items() if other in seen}
        return Batch(values, observed={name: observed[name]} if name in observed else {})

    def _has_batch_norm(self, name: str) -> bool:
        """Whether the statistics of batch norm in a modality's decoder are those of the batch."""
        if name not in self._with_batch_norm:
            network = self.model.decoder[self.model.modality[name].decoder.key]
            self._with_batch_norm[name] = self.model.training and has_batch_norm(network)
        return self._with_batch_norm[name]

    def _log_prob(self, name: str, z: Tensor, values: Batch) -> Tensor:
        """log p of a modality's values at z (..., B, D): (..., B), for a set (..., B, n); a few samples at a time."""
        flat, by_examples = z.flatten(0, -3), []  # (L, B, D)
        n_samples = flat[..., 0].numel()
        undivided = n_samples <= FEW or self._has_batch_norm(name)
        at_once = n_samples if undivided else samples_at_once(self.model, z.shape[-1])
        n = min(flat.shape[1], max(1, at_once // len(flat)))
        for rows in split(flat.shape[1], n):
            part = values[rows]
            x, given, observed = part.modalities[name], part.modalities, part.observed.get(name)
            decoded = (self.model.decode(zs, [name], given)[name] for zs in flat[:, rows].split(max(1, at_once // n)))
            by_examples.append(torch.cat([log_prob(name, p, x, leading=2, observed=observed) for p in decoded]))
        return torch.cat(by_examples, dim=1).unflatten(0, z.shape[:-2])

    def _of_stack(self, z_of: Mapping[str, Tensor], scored: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """log p(x_m|z_m) of modalities that one `StackedDecoder` decodes, each at its own z (T_m, ..., B, D)."""
        decoder = self.model.modality[next(iter(z_of))].decoder
        names = decoder.models
        n_terms = max(map(len, z_of.values()))
        filler = next(iter(z_of.values()))[:1]
        rows = [z_of.get(name, filler) for name in names]
        rows = torch.stack([torch.cat([x, x[:1].expand(n_terms - len(x), *x.shape[1:])]) for x in rows])
        x = self._stacked(names, self.batch.modalities, rows.dim())
        out = outputs(self.model.decoder[decoder.key], rows.flatten(1, -2)).movedim(1, 0)  # (n, N, ...)
        p = self.model.likelihood[names[0]](out.reshape(*rows.shape[:-1], *out.shape[2:]))
        observed = None
        if {*names} & {*(self.batch.observed or ())}:
            there = {name: self.batch.observed_values(name) for name in names if name in self.batch.modalities}
            observed = self._stacked(names, there, rows.dim())
        log_p = log_prob_of_observed(", ".join(names), p, x, observed)
        by_name = zip(names, log_p.unbind(), strict=True)  # at once: the gradient of log_p[i] is as large
        log_p = {name: x[: len(z_of[name])] for name, x in by_name if name in z_of}
        return {name: self._summed(name, x, scored[name]) for name, x in log_p.items()}

    def _stacked(self, names: tuple[str, ...], values: Mapping[str, Tensor], n_dims: int) -> Tensor:
        """The values {name: (B, ...)} of a stack's modalities, (n, 1, ..., 1, B, ...), for z (n, T, ..., B, D)."""
        x = stack_values(names, values, self.batch.mask, self.model.modality).movedim(1, 0)  # (n, B)
        return x.view(len(names), *[1] * (n_dims - 3), *x.shape[1:])


def split(n: int, at_once: int) -> Iterator[slice]:
    """Slices of n rows, `at_once` in each."""
    return (slice(start, start + at_once) for start in range(0, n, at_once))


def samples_at_once(model: MultimodalVAE, n_latents: int) -> int:
    """How many samples of z (..., D) to decode in one batch where there are many.

    Args:
        n_latents: D.
    """
    device = next(model.parameters()).device.type
    if model not in _largest_outputs:
        _largest_outputs[model] = _largest_output(model, n_latents)
    return max(1, min(DECODED_AT_ONCE[device], LAYER_BYTES[device] // _largest_outputs[model]))


@torch.no_grad()
def _largest_output(model: MultimodalVAE, n_latents: int) -> int:
    """How many bytes a decoder's layer gives for one sample of z, at most."""
    sizes = [1]

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        sizes.extend(x.nbytes for x in (output if isinstance(output, tuple) else (output,)) if torch.is_tensor(x))

    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # neither draws nor batch statistics
    with register_module_forward_hook(note):
        names = [name for name in model.modelled if not model.modality[name].given]
        model.decoder_outputs(next(model.parameters()).new_zeros(1, n_latents), names)
    for module, training in modes:
        module.training = training
    return max(sizes)
