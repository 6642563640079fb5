"""Several processes at one run, as `torchrun --nproc-per-node N train.py ...` starts them; otherwise there is one.

Each process takes its part of every batch and draws noise of its own. Gradients are sums over all of them, so that a
step is that of one process with the same batch. What is said of examples is gathered. The first process prints and
writes.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import require

T = TypeVar("T")


def start() -> None:
    """Meet the other processes, where there are any. But for the first one's, what is printed is not shown."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        # by itself it takes the GPU's alone, where there is one, of which tensors on the CPU know nothing
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        if rank():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def quiet() -> bool | None:
    """What tqdm's `disable` is to be: bars are the first process's, on a terminal."""
    return True if rank() else None


def part() -> slice:
    """Which of some rows are this process's."""
    return slice(rank(), None, world())


def seed_apart() -> None:
    """Let each process draw noise of its own from here on."""
    if world() > 1:
        torch.manual_seed(torch.initial_seed() + 1_000_003 * rank())


def summed(x: Tensor) -> Tensor:
    """The sum over the processes of x, which is overwritten."""
    if world() > 1:
        dist.all_reduce(x)
    return x


def any_of(condition: bool) -> bool:
    """Whether it holds in any of the processes, which all have to ask."""
    return bool(summed(torch.tensor(float(condition))))


def gathered(x: T) -> list[T]:
    """Every process's x, in their order."""
    found = [x] * world()
    if world() > 1:
        dist.all_gather_object(found, x)
    return found


def rows_of_all(x: Tensor) -> Tensor:
    """What the processes say of their `part` of some rows, (n, ...) each: of all rows, in their order."""
    parts = gathered(x.cpu())
    whole = parts[0].new_empty(sum(map(len, parts)), *x.shape[1:])
    for i, rows in enumerate(parts):
        whole[i :: world()] = rows
    return whole


def share_out(
    n: int, at_once: int, f: Callable[[Tensor], Mapping[str, Tensor]], desc: str | None = None, unit: str = " examples"
) -> dict[str, Tensor]:
    """What f says of the rows 0 to n, some at once, (B,) -> {name: (B, ...)}: of all, {name: (n, ...)}, on the CPU.

    Of several processes each takes its part.

    Args:
        desc, unit: what the progress bar says.

    Raises:
        InputError: there are more processes than rows.
    """
    require(world() <= n, f"{world()} processes are more than share {n}{unit}")
    own, found = torch.arange(n)[part()], []
    with tqdm(total=len(own), desc=desc, unit=unit, disable=quiet()) as bar:
        for rows in own.split(at_once):
            found.append(f(rows))
            bar.update(len(rows))
    return {name: rows_of_all(torch.cat([x[name] for x in found])) for name in found[0]}


def of_first(make: Callable[[], T]) -> T:
    """What the first process makes, for all."""
    made = [make() if rank() == 0 else None]
    if world() > 1:
        dist.broadcast_object_list(made)
    return made[0]


def average_buffers(model: nn.Module) -> None:
    """Let what batch norms have seen be the mean of the processes'."""
    if world() > 1:
        for x in model.buffers():
            if x.is_floating_point():
                summed(x).div_(world())


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let each parameter's gradient be the sum over the processes: none where none of them has one."""
    parameters = list(parameters)
    there = torch.tensor([float(x.grad is not None) for x in parameters], device=parameters[0].device)
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in parameters]
    # one message for all
    n, *sums = summed(torch.cat([there, *(x.flatten() for x in gradients)])).split(
        [len(parameters), *(x.numel() for x in parameters)]
    )
    for x, gradient, k, total in zip(parameters, gradients, n.tolist(), sums, strict=True):
        # in the parameter's own layout, which the fused optimiser takes for granted
        x.grad = gradient.copy_(total.view_as(x)) if k else None
