"""A step of training, as it is or captured as a CUDA graph."""

from collections import Counter
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from common import distributed
from common.data.batches import Examples
from common.encoders_decoders import has_batch_norm
from common.errors import InputError
from common.objectives.base import Bound, Objective

WARM_UP = 3  # steps before one is captured


class Step:
    """A step of the optimiser on a batch of examples."""

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer) -> None:
        self.objective, self.optimizer = objective, optimizer

    def __call__(
        self, examples: Examples, index: Tensor, n: int, beta: float | Tensor, every_row: bool = False
    ) -> Bound | None:
        """Add up the batch's gradients over all processes and step.

        Args:
            index: of this process's part of the batch.
            n: number of examples in the batch, over all processes.
            every_row: see `Batch`.

        Returns:
            the bound of its part, without gradient; None if the part is empty.
        """
        self.optimizer.zero_grad()
        bound = None
        if len(index):
            batch = replace(examples[index], every_row=True) if every_row else examples[index]
            # a mean over examples, which may have several rows
            bound = self.objective.backward(batch, beta, n)
        if distributed.world() > 1:
            distributed.add_gradients(self.objective.parameters())
        self.optimizer.step()
        return bound

    def capturable(self, examples: Examples) -> bool:
        """Whether every batch of a size can take the same operations: batch norm must not see what is absent."""
        whole = examples.mask is None or not has_batch_norm(self.objective)
        return whole and self.objective.capturable and distributed.world() == 1


class CapturedStep:
    """A training step as CUDA graphs: a replay costs one launch where a small model's hundreds take most of the time.

    Each size of a batch has a graph. Its first steps run as they are, so that libraries and compilers get ready.

    Args:
        step: one that is capturable.
    """

    def __init__(self, step: Step) -> None:
        self.step = partial(step, every_row=True)
        self.optimizer = step.optimizer
        self.done = Counter()  # steps by the size of the batch
        self.aside = torch.cuda.Stream()  # where a step is to be run before it can be captured
        self.beta = torch.zeros((), device=next(step.objective.parameters()).device)
        self.captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Bound]] = {}

    def __call__(self, examples: Examples, index: Tensor, n: int, beta: float) -> Bound:
        """The bound is overwritten by the next call. The examples must lie where those of the first call lay.

        Raises:
            InputError: the step cannot be captured.
        """
        self.beta.fill_(beta)
        self.done[n] += 1
        if self.done[n] <= WARM_UP:
            self.aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.aside):
                bound = self.step(examples, index, n, self.beta)
            torch.cuda.current_stream().wait_stream(self.aside)
            return bound
        if n not in self.captured:
            self.captured[n] = self._capture(examples, index.clone())
        graph, captured_index, bound = self.captured[n]
        captured_index.copy_(index)
        graph.replay()
        return bound

    def _capture(self, examples: Examples, index: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Bound]:
        groups = self.optimizer.param_groups
        graph = torch.cuda.CUDAGraph()
        try:
            for group in groups:
                group["capturable"] = True
            # other threads read the batches of a stream meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                bound = self.step(examples, index, len(index), self.beta)
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise InputError(
                f"the training step cannot be one CUDA graph ({cause}): --no-capture runs it as it is"
            ) from error
        finally:
            for group in groups:
                group["capturable"] = False  # the checkpoint may be resumed on a CPU
        return graph, index, bound
