"""A training step, run operation by operation or captured as a CUDA graph."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common import distributed
from common.data.batches import Examples
from common.encoders_decoders import has_batch_norm
from common.errors import InputError
from common.objectives.base import Bound, Objective

WARM_UP = 3  # steps that run before one is captured


class Step:
    """A step of the optimiser on a batch of examples.

    Args:
        max_grad_norm: gradients that are longer are scaled down to this norm; None for any length.
    """

    def __init__(
        self, objective: Objective, optimizer: torch.optim.Optimizer, max_grad_norm: float | None = None
    ) -> None:
        self.objective, self.optimizer, self.max_grad_norm = objective, optimizer, max_grad_norm

    def __call__(
        self, examples: Examples, index: Tensor, n: int, beta: float | Tensor, every_row: bool = False
    ) -> tuple[Bound | None, Tensor]:
        """Sum the batch's gradients over all processes and step, unless they are not finite.

        Args:
            index: this process's part of the batch, indices of examples, (B,).
            n: examples in the batch, over all processes.
            beta: weight of the KL.
            every_row: see `Batch`.

        Returns:
            the bound of this process's part, without gradient, or None if the part is empty; and the gradient's norm.
        """
        self.optimizer.zero_grad()
        bound = None
        if len(index):
            batch = replace(examples[index], every_row=True) if every_row else examples[index]
            # n, since the loss is a mean over examples, and an example may have several rows
            bound = self.objective.backward(batch, beta, n)
        if distributed.world_size() > 1:
            sum_gradients([x for x in self.objective.parameters() if x.requires_grad])
        parameters = [x for x in self.objective.parameters() if x.grad is not None]
        norm = total_norm([x.grad for x in parameters])
        if self.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        self.optimizer.found_inf = (~norm.isfinite()).float()  # if 1, a fused optimiser changes no weight
        self.optimizer.step()
        return bound, norm

    def capturable(self, examples: Examples) -> bool:
        """Whether all batches of the same size need the same operations, so that one graph serves them.

        They do not with batch norm and absent modalities: batch norm runs only on the rows that have the modality.
        """
        same_rows = examples.mask is None or not has_batch_norm(self.objective)
        return same_rows and self.objective.capturable and distributed.world_size() == 1


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum each parameter's gradient over all processes, in place; it stays None if no process has one.

    A process has no gradient where its rows lack a modality, or if it has no rows.
    """
    has_gradient = torch.tensor([float(x.grad is not None) for x in parameters], device=parameters[0].device)
    gradients = [(torch.zeros_like(x) if x.grad is None else x.grad).flatten() for x in parameters]
    message = torch.cat([has_gradient, *gradients])
    dist.all_reduce(message)
    counts, *sums = message.split([len(parameters), *(x.numel() for x in parameters)])
    for x, count, total in zip(parameters, counts.tolist(), sums, strict=True):
        # in the parameter's own memory layout, which the fused optimiser requires
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        x.grad = gradient.copy_(total.view_as(x)) if count else None


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients as one vector; each is dense in memory, its dimensions in any order.

    torch's norm runs on one thread of a CPU; scalar products run on all, three times as fast.
    """
    if not gradients or gradients[0].device.type != "cpu":
        return nn.utils.get_total_norm(gradients)
    flat = [x.as_strided((x.numel(),), (1,)) for x in gradients]
    return torch.stack([x.dot(x) for x in flat]).sum().sqrt()


class CapturedStep:
    """A training step as CUDA graphs, one for each batch size.

    A replay costs one launch; the hundreds of launches of a small model take longer than its arithmetic. The first
    steps of each batch size run operation by operation, so that libraries and compilers can warm up.

    Args:
        step: a step for which `capturable` holds.
    """

    def __init__(self, step: Step) -> None:
        self.step = partial(step, every_row=True)
        self.optimizer = step.optimizer
        self.n_steps = Counter()  # by batch size
        self.warm_up_stream = torch.cuda.Stream()  # capture requires that warm-up steps run on a side stream
        self.beta = torch.zeros((), device=next(step.objective.parameters()).device)
        self.captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Bound, Tensor]]] = {}

    def __call__(self, examples: Examples, index: Tensor, n: int, beta: float) -> tuple[Bound, Tensor]:
        """Step like `Step`. The next call overwrites the result; all calls need the examples at the same addresses.

        Raises:
            InputError: the step cannot be captured.
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

    def _capture(self, examples: Examples, index: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Bound, Tensor]]:
        groups = self.optimizer.param_groups
        graph = torch.cuda.CUDAGraph()
        try:
            for group in groups:
                group["capturable"] = True
            # threads that read a stream's batches go on during the capture
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.step(examples, index, len(index), self.beta)
        except RuntimeError as error:
            cause = str(error).splitlines()[0]
            raise InputError(
                f"the training step cannot be captured as a CUDA graph ({cause}): if a network's operations "
                "change from batch to batch, set `capturable = False` in its objective's class"
            ) from error
        finally:
            for group in groups:
                group["capturable"] = False  # the checkpoint may be resumed on a CPU
        return graph, index, result
