"""How many samples can be decoded at a time in a given amount of memory."""

import torch

from common.errors import require
from common.multimodal_vae import MultimodalVAE


def samples_that_fit(model: MultimodalVAE, gib: float) -> int:
    """The number of samples whose decoding fits into `gib` GiB, activations and gradients included.

    Raises:
        InputError: not one sample fits, or a decoder sees more than z.
    """
    conditional = [name for name, modality in model.modality.items() if modality.given]
    require(
        not conditional,
        f"--max-memory needs decoders of z alone, that of {', '.join(conditional)} has more inputs: leave it out",
    )
    statistics = [x.clone() for x in model.decoder.buffers()]
    with torch.random.fork_rng():  # the run's own draws stay as they are
        bytes_of_8, bytes_of_16 = (_bytes_for_backward(model, n) for n in (8, 16))
    for x, before in zip(model.decoder.buffers(), statistics, strict=True):  # batch norm's
        x.copy_(before)
    n = int(gib * 2**30 / (2 * (bytes_of_16 - bytes_of_8) / 8))
    require(n > 0, f"--max-memory {gib} GiB is less than one sample takes: raise it")
    return n


def _bytes_for_backward(model: MultimodalVAE, n: int) -> int:
    """The bytes that the backward pass of n decoded samples needs."""
    sizes = {}

    def hold(x: torch.Tensor) -> torch.Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda x: x):
        decoded = model.decode(model.prior().sample((n,)).requires_grad_())
        # keep all tensors alive: a reused address would count two tensors as one. Score zeros: word 0 is not padding
        points = model.likelihood.point(decoded)
        log_probs = [p.log_prob(torch.zeros_like(points[name])) for name, p in decoded.items()]
    del log_probs
    return sum(sizes.values())
