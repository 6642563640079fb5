"""The backward pass of importance-weighted objectives: it decodes with gradients only samples whose weight counts.

On a CPU all samples are decoded without gradients first. Most weights of images are negligible, so that decoding the
others again costs less than gradients of all. Where most samples count, and where decoding again would not give the
same, the backward pass takes a few examples at a time, so that only their activations are held.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from common.data.batches import Batch
from common.encoders_decoders import has_batch_norm, is_repeatable
from common.execution.decoder import Decoder, samples_at_once, split
from common.multimodal_vae import MultimodalVAE

MAX_SHARE = 0.6  # above this share of samples that count, decoding them first costs more time than it saves
PROBE_EVERY = 16  # one of these examples is decoded first, to see whether most samples count
ROWS = 64  # decoded with gradients in multiples of it: arrays of ever new sizes would leave gaps in the memory


def backward(objective: nn.Module, batch: Batch, beta: float | Tensor, n: int) -> Any:  # noqa: ANN401
    """Add the gradient of the rows' losses, divided by n, to the parameters' gradients; return the `Bound`.

    The encoders run once. Each part of the batch ends at leaves, the experts' parameters and z, whose gradients then go
    on to the encoders.

    Args:
        objective: an `ImportanceWeighted`.
        n: examples in the batch over all processes.
    """
    params, z, pi = objective.sample(batch)
    roots, bounds = (*params, z), []
    leaves = [x.detach().requires_grad_(x.requires_grad) for x in roots]
    known = _decoded_first(objective, batch, z.detach(), pi.detach())
    for rows in split(len(batch), _examples_at_once(objective.model, batch, z, known)):
        *of_params, of_z = (x[..., rows, :] for x in leaves)
        decoder = WeightedDecoder(objective.model, batch[rows], {name: x[..., rows] for name, x in known.items()})
        surrogate, bound = objective.surrogate(decoder, tuple(of_params), of_z, beta)
        (-surrogate.sum() / n).backward()
        bounds.append(bound.detach())
    reached = [(x, leaf.grad) for x, leaf in zip(roots, leaves, strict=True) if leaf.grad is not None]
    if reached:  # frozen encoders have no gradient
        torch.autograd.backward(*zip(*reached, strict=True))
    return bounds[0].joined(bounds)


class WeightedDecoder(Decoder):
    """A decoder of z (T, K, B, D) that knows some modalities' log p(x_m|z); their gradients decode what counts.

    Args:
        known: {name: log p(x_m|z) (T, K, B)}, without gradients.
    """

    def __init__(self, model: MultimodalVAE, batch: Batch, known: Mapping[str, Tensor]) -> None:
        super().__init__(model, batch)
        self.known = known

    def of_modality(self, name: str, z: Tensor, scored: Tensor | None) -> Tensor:
        if name not in self.known:
            return super().of_modality(name, z, scored)
        modules = self.model.decoder[self.model.modality[name].decoder.key], self.model.likelihood[name]
        return _DecodedAgain.apply(self, name, scored, z, *(p for module in modules for p in module.parameters()))


class _DecodedAgain(torch.autograd.Function):
    """log p(x_m|z) that is known; the backward pass decodes the samples that count."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, decoder: WeightedDecoder, name: str, scored: Tensor | None, z: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.decoder, ctx.name, ctx.scored = decoder, name, scored
        ctx.save_for_backward(z, *parameters)
        known = decoder.known[name]
        return known.clone() if scored is None else torch.where(scored.any(dim=-1), known, 0)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        decoder, (z, *parameters) = ctx.decoder, ctx.saved_tensors
        needs_z, *needed = ctx.needs_input_grad[3:]
        parameters = [x for x, needs in zip(parameters, needed, strict=True) if needs]
        found, found_z = [torch.zeros_like(x) for x in parameters], z.new_zeros(z.shape)
        rows = _counting_rows(gradient)
        scored = None if ctx.scored is None else ctx.scored.expand(*z.shape[:-1], -1).flatten(0, -2)
        for part in rows.split(samples_at_once(decoder.model, z.shape[-1])) if len(rows) else ():
            with torch.enable_grad():
                z_part = z.flatten(0, -2)[part].requires_grad_()
                log_p = decoder.of_rows(ctx.name, z_part, part % z.shape[2], None if scored is None else scored[part])
            found_z.view(-1, z.shape[-1])[part], *of_parameters = torch.autograd.grad(
                log_p, [z_part, *parameters], gradient.flatten()[part], materialize_grads=True
            )
            for total, of_part in zip(found, of_parameters, strict=True):
                total += of_part
        of_parameters = iter(found)
        return None, None, None, found_z if needs_z else None, *(next(of_parameters) if x else None for x in needed)


def _counting_rows(gradient: Tensor) -> Tensor:
    """The samples of a gradient (T, K, B) that count, and the largest others up to a multiple of ROWS: (N,), sorted."""
    n = -(-int(_counts(gradient.abs()).sum()) // ROWS) * ROWS
    return gradient.abs().flatten().topk(min(n, gradient.numel())).indices.sort().values


def _counts(size: Tensor) -> Tensor:
    """Which samples (T, K, B), by the size of their gradient, change their example's in floating point; all of NaN."""
    return ~(size <= torch.finfo(size.dtype).eps ** 2 * size.amax(dim=(0, 1)))


@torch.no_grad()
def _decoded_first(objective: nn.Module, batch: Batch, z: Tensor, pi: Tensor) -> dict[str, Tensor]:
    """log p(x_m|z) of all samples, (T, K, B), without gradients, of the modalities that can be decoded again.

    None if most samples count, as far as some examples and these modalities tell, for K = 1, and on a GPU.
    """
    model, names = objective.model, [name for name in batch.modalities if _decodes_alone(objective.model, name)]
    if not names or z.device.type != "cpu" or batch.every_row or z.shape[1] == 1:
        return {}

    def decoded(rows: slice) -> dict[str, Tensor]:
        decoder, where = Decoder(model, batch[rows]), (pi[:, None, rows, None] > 0)
        of_rows = z[:, :, rows]
        return {
            name: decoder.of_modality(name, of_rows, decoder.scored(name, 4, None, where, range(len(z))))
            for name in names
        }

    n = -(-len(batch) // PROBE_EVERY)
    first = decoded(slice(n))
    log_w = sum(objective.weights[name] * log_p for name, log_p in first.items())
    if _counts(objective.coefficients(log_w, pi[:, :n])).float().mean() > MAX_SHARE:
        return {}
    others = decoded(slice(n, None)) if n < len(batch) else {}
    return {name: torch.cat([x, others[name]], dim=-1) if others else x for name, x in first.items()}


def _decodes_alone(model: MultimodalVAE, name: str) -> bool:
    """Whether log p(x_m|z) of a sample depends on no other sample, and is the same when it is decoded again."""
    decoder = model.modality[name].decoder
    if decoder is None or decoder.stacked:
        return False
    return not model.training or is_repeatable(model.decoder[decoder.key])


def _examples_at_once(model: MultimodalVAE, batch: Batch, z: Tensor, known: Mapping[str, Tensor]) -> int:
    """How many examples to decode at once with gradients: all if batch norm must see all, or if all are known."""
    decoded = [name for name in model.modelled if name in batch.modalities]
    if set(decoded) <= set(known) or (model.training and has_batch_norm(model.decoder)):
        return len(batch)
    return max(1, samples_at_once(model, z.shape[-1]) // (z.shape[0] * z.shape[1]))
