"""A training step as CUDA graphs see it, without a GPU: the device is "meta", whose tensors have no values."""

import gc
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

from common.execution.score import BYTES, DECODED_AT_ONCE
from training.steps import Step

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
READS = ("multinomial", "_unique2", "repeat_interleave")  # others that read values refuse tensors without any


class Captured(TorchDispatchMode):
    """Fails where tensors come from the CPU, or values are read. Counts operations."""

    def __init__(self):
        super().__init__()
        self.operations = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        here = [x for x in tensors if x.device != DEVICE]
        on_device = len(here) < len(tensors) or torch.device(kwargs.get("device") or "cpu") == DEVICE
        if on_device:
            name = func._schema.name.split("::")[1]
            is_copy = name in ("_to_copy", "copy_")
            # a number is part of the launch; all else would have to be there when the graph is replayed
            from_cpu = [tuple(x.shape) for x in here if is_copy or x.dim() or name.startswith("index")]
            assert not from_cpu, f"{name} takes tensors of shape {from_cpu} from the CPU"
            assert name not in READS, f"{name} reads values"
            self.operations[name] += not func.is_view
        return func(*args, **kwargs)


class WithoutConstants(TorchFunctionMode):
    """Fails where numbers become a tensor on the device, which copies them from the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        constant = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and made.device == DEVICE
        assert not constant, f"{func.__name__} copies numbers from the CPU"
        return made


@contextmanager
def captured():
    """A context that fails for what a CUDA graph cannot hold, and gives the operations, a Counter."""
    with Captured() as mode, WithoutConstants():
        yield mode.operations


def capture(objective, examples, monkeypatch, n=8, max_grad_norm=None):
    """Run a step twice, the second time as a graph would hold it, and return the operations of the second.

    No node of its graph may outlive it: the next capture, on another stream, would find the node's stream.
    """
    for limits in (DECODED_AT_ONCE, BYTES):
        monkeypatch.setitem(limits, "meta", limits["cuda"])
    objective.train().to(DEVICE)
    examples, index = examples.to(DEVICE), torch.empty(n, dtype=torch.long, device=DEVICE)
    optimizer = SimpleNamespace(zero_grad=objective.zero_grad, step=lambda: None)
    step, beta = Step(objective, optimizer, max_grad_norm), torch.empty((), device=DEVICE)
    step(examples, index, n, beta, every_row=True)  # what is copied once stays
    parameters = [p for p in objective.parameters() if p.requires_grad]

    def backward(self, *args, original=Tensor.backward, **options):
        for p in parameters:
            _accumulation(p).metadata["of this step"] = True
        return original(self, *args, **options)

    monkeypatch.setattr(Tensor, "backward", backward)
    gc.collect()
    gc.disable()
    try:
        with captured() as operations:
            step(examples, index, n, beta, every_row=True)
        survive = ["of this step" in _accumulation(p).metadata for p in parameters]
    finally:
        gc.enable()
    assert not any(survive), f"the graph of {sum(survive)} of {len(survive)} parameters outlives the step"
    return operations


def _accumulation(parameter):
    """The node of a graph at which a parameter's gradient is added up."""
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]
