"""What a capture that fails says, with torch.cuda's classes replaced: no GPU is needed."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

from common.errors import InputError
from common.execution.cuda_graphs import WARM_UP, CapturedStep

import pytest
import torch


@contextmanager
def broken_capture(*_, **__):
    """As torch.cuda.graph, whose end raises an error of its own after any other."""
    try:
        yield
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nmore")


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stub in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": object,
        "graph": broken_capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device=None: zeros(*shape))


def raised(error, first=None):
    """An error with another one, which was handled, as its context."""
    try:
        try:
            raise first or KeyError("handled")
        except type(first or KeyError("")):
            raise error from None
    except RuntimeError as chained:
        return chained


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")
READ = r"CUDA graph \(a value was read\): .*`same_op"


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OUT_OF_MEMORY, torch.OutOfMemoryError, "CUDA out of memory"),
        (raised(RuntimeError("again"), OUT_OF_MEMORY), torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError("a value was read\nmore"), InputError, READ),
        (raised(RuntimeError("a value was read\nmore")), InputError, READ),
        (RuntimeError(), InputError, r"CUDA graph \(RuntimeError\)"),
    ],
)
def test_a_capture_that_fails_tells_the_first_error(error, expected, message):
    steps = []

    def step(*_, every_row):
        steps.append(every_row)
        if len(steps) > WARM_UP:
            raise error

    optimizer = SimpleNamespace(param_groups=[{}])
    captured, index = CapturedStep(step, optimizer), torch.arange(2)
    for _ in range(WARM_UP):
        captured(None, index, 2, 0.5)
    with pytest.raises(expected, match=message):
        captured(None, index, 2, 0.5)
    assert optimizer.param_groups == [{"capturable": False}] and all(steps)
