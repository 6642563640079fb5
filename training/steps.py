"""A step of the optimiser on a batch."""

from collections.abc import Sequence
from dataclasses import replace

from common.data.batches import Examples
from common.encoders_decoders import has_batch_norm
from common.errors import Diverged
from common.execution import processes
from common.objectives.base import Bound, Objective

import torch
import torch.distributed as dist
from torch import Tensor, nn

DIVERGED = (
    "checkpoints so far are kept: try a smaller --lr in another --save-dir, or look for extreme values in the data"
)


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
            bound = self.objective.backward(batch, beta, n, len(index) / n)
        if processes.world_size() > 1:
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

        They do not with batch norm and absent modalities: batch norm runs only on the rows that have the modality. They
        do not if nobody knows which modalities lack values (`Examples.incomplete`): each batch is then looked at.
        """
        same_rows = examples.mask is None or not has_batch_norm(self.objective)
        is_known = examples.incomplete is not None
        return same_rows and is_known and self.objective.same_operations and processes.world_size() == 1


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


def require_finite(model: nn.Module, optimizer: torch.optim.Optimizer, when: str) -> None:
    """Raise InputError for broken weights, buffers or moments, so that no checkpoint holds them."""
    moments = {
        f"the optimiser's {name} of parameter {i}": x
        for i, state in enumerate(optimizer.state.values())
        for name, x in state.items()
    }
    broken = [name for name, x in (model.state_dict() | moments).items() if not x.isfinite().all()]
    if broken:
        raise Diverged(f"weights are not finite {when}: {', '.join(broken[:3])}; {DIVERGED}")
