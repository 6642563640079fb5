"""How many samples of z are decoded at a time: the fastest number, and the one that fits a given amount of memory."""

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.random_states import fixed_noise

# The most samples of z decoded at once, over all examples: few enough for the memory, enough to keep a GPU busy and, on
# a CPU, to use each weight often.
DECODED_AT_ONCE = {"cpu": 2000, "cuda": 20_000}
CACHED = 2**22  # most numbers in one layer's output on a CPU, so that it stays in the cache

_largest_outputs: WeakKeyDictionary[MultimodalVAE, int] = WeakKeyDictionary()


def samples_at_once(model: MultimodalVAE, n_latents: int) -> int:
    """How many samples of z (..., D) to decode in one batch where there are many.

    Args:
        n_latents: D.
    """
    most = DECODED_AT_ONCE[model.device.type]
    if model.device.type == "cuda":
        return most
    if model not in _largest_outputs:
        _largest_outputs[model] = _largest_output(model, n_latents)
    return max(1, min(most, CACHED // _largest_outputs[model]))


@torch.no_grad()
def _largest_output(model: MultimodalVAE, n_latents: int) -> int:
    """How many numbers a decoder's layer gives for one sample of z, at most."""
    sizes = [1]

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        sizes.extend(x.numel() for x in (output if isinstance(output, tuple) else (output,)) if torch.is_tensor(x))

    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # neither draws nor batch statistics
    with register_module_forward_hook(note), torch.compiler.set_stance("force_eager"):
        names = [name for name in model.modelled if not model.modality[name].given]
        model.decoder_outputs(next(model.parameters()).new_zeros(1, n_latents), names)
    for module, training in modes:
        module.training = training
    return max(sizes)


def samples_that_fit(model: MultimodalVAE, gib: float) -> int:
    """The number of samples whose decoding fits into `gib` GiB, activations and gradients included.

    Raises:
        InputError: `gib` is no positive number, not one sample fits, or a decoder sees more than z.
    """
    require(0 < gib < math.inf, f"--max-memory must be positive and finite, it is {gib}")
    conditional = [name for name, modality in model.modality.items() if modality.given]
    require(
        not conditional,
        f"--max-memory needs decoders of z alone, that of {', '.join(conditional)} has more inputs: leave it out",
    )
    statistics = [x.clone() for x in model.decoder.buffers()]
    with fixed_noise(0, model.device):  # the run's own draws stay as they are
        bytes_of_8, bytes_of_16 = (_bytes_for_backward(model, n) for n in (8, 16))
    for x, before in zip(model.decoder.buffers(), statistics, strict=True):  # batch norm's
        x.copy_(before)
    n = int(gib * 2**30 / (2 * (bytes_of_16 - bytes_of_8) / 8))
    require(n > 0, f"--max-memory {gib} GiB is less than one sample takes: raise it")
    return n


def _bytes_for_backward(model: MultimodalVAE, n: int) -> int:
    """The bytes that the backward pass of n decoded samples needs."""
    sizes = {}

    def hold(x: Tensor) -> Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda x: x):
        decoded = model.decode(model.prior().sample((n,)).requires_grad_())
        # keep all tensors alive: a reused address would count two tensors as one. Score zeros: word 0 is not padding
        points = model.likelihood.point(decoded)
        log_probs = [p.log_prob(torch.zeros_like(points[name])) for name, p in decoded.items()]
    del log_probs
    return sum(sizes.values())
