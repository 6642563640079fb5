"""Fill a model's parameters, and make inputs, from formulas alone, so that two
implementations can be compared on the same numbers without a random generator."""

import math
import zlib

import torch


def wave(name, shape):
    """Pseudo-random values, uniform on [-1, 1), float32: a 32-bit integer hash of flat index and name."""
    mask = 0xFFFFFFFF
    bits = (torch.arange(math.prod(shape)) + zlib.crc32(name.encode())) * 2654435761 & mask
    bits = (bits ^ bits >> 16) * 2246822519 & mask
    bits = (bits ^ bits >> 13) * 3266489917 & mask
    bits = bits ^ bits >> 16
    return (bits.double() / 2**31 - 1).reshape(shape).float()


def parameter(name, shape):
    """The value of the state-dict entry `name` of the given shape.

    Weights (2 or more dimensions) are scaled by 2.5/sqrt(numel / shape[0]); everything with one
    dimension is 0.05 * wave, except a batch norm's weight and running_var, which are 1 + 0.1 * wave.
    """
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    w = wave(name, shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * w
    if len(shape) == 1:
        return 0.05 * w
    return 2.5 * w / math.sqrt(w.numel() / shape[0])


def fill(state_dict):
    """A state dict with the same keys and shapes as `state_dict`, filled by formula.

    A 1-d `weight` with a sibling `running_mean` (a batch norm's) becomes 1 + 0.1 * wave.
    """
    filled = {}
    for name, tensor in state_dict.items():
        value = parameter(name, tuple(tensor.shape))
        if name.endswith(".weight") and name[: -len("weight")] + "running_mean" in state_dict:
            value = 1 + 0.1 * wave(name, tuple(tensor.shape))
        filled[name] = value.to(tensor.dtype)
    return filled


def image(batch, channels, size):
    """Images in (0, 1), shape (batch, channels, size, size)."""
    return 0.5 + 0.5 * wave(f"image{channels}x{size}", (batch, channels, size, size))


def integers(name, shape, high):
    """Integers in [0, high)."""
    return ((wave(name, shape).double() + 1) / 2 * high).long().clamp(max=high - 1)
