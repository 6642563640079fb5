"""What a step must not do if a CUDA graph is to hold it."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoConstants(TorchDispatchMode):
    """Fails where a Python number becomes a tensor, by a copy if that is on a GPU; subsets and indices stay here."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten.lift_fresh.default or not args[0].is_floating_point(), "torch.tensor"
        return func(*args, **(kwargs or {}))
