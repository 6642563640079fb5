"""How many samples of z are decoded at a time."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from common.multimodal_vae import MultimodalVAE

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
    with register_module_forward_hook(note):
        names = [name for name in model.modelled if not model.modality[name].given]
        model.decoder_outputs(next(model.parameters()).new_zeros(1, n_latents), names)
    for module, training in modes:
        module.training = training
    return max(sizes)
