"""Training steps as CUDA graphs."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from common.data.batches import Examples
from common.errors import InputError

import torch
from torch import Tensor

Result = TypeVar("Result")
WARM_UP = 3  # steps that run before one is captured


class CapturedStep(Generic[Result]):
    """A training step as CUDA graphs, one for each batch size.

    A replay costs one launch; the hundreds of launches of a small model take longer than its arithmetic. The first
    steps of each batch size run operation by operation, so that libraries and compilers can warm up.

    Args:
        step: called as (examples, index, n, beta, every_row=True), such as a `training.steps.Step`; all its batches of
            the same size must need the same operations.
        optimizer: the one that steps.
    """

    def __init__(self, step: Callable[..., Result], optimizer: torch.optim.Optimizer) -> None:
        self.step = partial(step, every_row=True)
        self.optimizer = optimizer
        self.n_steps = Counter()  # by batch size
        self.warm_up_stream = torch.cuda.Stream()  # capture requires that warm-up steps run on a side stream
        self.beta = torch.zeros((), device="cuda")
        self.captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Result]] = {}

    def __call__(self, examples: Examples, index: Tensor, n: int, beta: float) -> Result:
        """Step. The next call overwrites the result; all calls need the examples at the same addresses.

        Raises:
            InputError: the step cannot be captured.
            OutOfMemoryError: nor run, in the GPU's memory.
        """
        self.beta.fill_(beta)
        self.n_steps[n] += 1
        if self.n_steps[n] <= WARM_UP:
            self.warm_up_stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.warm_up_stream):
                result = self.step(examples, index, n, self.beta)
            torch.cuda.current_stream().wait_stream(self.warm_up_stream)
            return result
        if n not in self.captured:
            self.captured[n] = self._capture(examples, index.clone())
        graph, captured_index, result = self.captured[n]
        captured_index.copy_(index)
        graph.replay()
        return result

    def _capture(self, examples: Examples, index: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Result]:
        groups = self.optimizer.param_groups
        graph = torch.cuda.CUDAGraph()
        try:
            for group in groups:
                group["capturable"] = True
            # threads that read a stream's batches go on during the capture
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.step(examples, index, len(index), self.beta)
        except RuntimeError as error:
            first, memory_ran_out = error, isinstance(error, torch.OutOfMemoryError)
            while isinstance(first.__context__, RuntimeError) and not memory_ran_out:
                first = first.__context__  # to end a broken capture raises another error
                memory_ran_out = isinstance(first, torch.OutOfMemoryError)
            if memory_ran_out:
                raise first from None
            cause = (str(first) or type(first).__name__).splitlines()[0]
            raise InputError(
                f"the training step cannot be captured as a CUDA graph ({cause}): if a network's operations "
                "change from batch to batch, set `same_operations = False` in its objective's class"
            ) from error
        finally:
            for group in groups:
                group["capturable"] = False  # the checkpoint may be resumed on a CPU
        return graph, index, result
