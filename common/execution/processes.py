"""Several processes in one run, started by `torchrun --nproc-per-node N train.py ...`; without torchrun there is one.

Each process takes its share of every batch and draws its own noise. Gradients are summed over the processes, so that a
step equals that of a single process on the whole batch. Results for examples are gathered on all processes. The first
process prints and writes files.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from common.errors import require
from common.progress import progress_bar

import torch
import torch.distributed as dist

# before a group exists: torch.optim's later import would keep the group alive, and a thread of gloo that frees a tensor
# while the interpreter ends aborts the process
import torch.distributed.nn
from torch import Tensor, nn

T = TypeVar("T")


def start() -> None:
    """Connect to the other processes if torchrun started them; only the first process keeps its standard output."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        # NCCL cannot reduce CPU tensors, so gloo is started beside it
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        if rank():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end() -> None:
    """Disconnect from the other processes, once all of them are done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """The index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rows() -> slice:
    """The rows that this process takes: every world_size()-th one, from rank() on."""
    return slice(rank(), None, world_size())


def seed_each_process() -> None:
    """Reseed torch differently on each process, so that each draws its own noise from here on."""
    if world_size() > 1:
        torch.manual_seed(int(torch.randint(2**62, ())) + rank())  # drawn: a second call repeats no noise of the first


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum x over the processes, in place, and return it."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def any_process(condition: bool) -> bool:
    """Whether the condition holds on any process. All processes have to call this."""
    return bool(sum_over_processes(torch.tensor(float(condition))))


def gather(x: T) -> list[T]:
    """The x of every process, in the order of their ranks."""
    values = [x] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, x)
    return values


def gather_rows(x: Tensor) -> Tensor:
    """Gather the rows of all processes in their original order, on the CPU.

    Args:
        x: (n, ...), a value for each row of this process's `local_rows`.

    Returns:
        (N, ...), N the number of rows of all processes.
    """
    by_process = gather(x.cpu())
    rows = by_process[0].new_empty(sum(map(len, by_process)), *x.shape[1:])
    for i, values in enumerate(by_process):
        rows[i :: world_size()] = values
    return rows


def map_rows(
    n: int, at_once: int, f: Callable[[Tensor], Mapping[str, Tensor]], desc: str | None = None, unit: str = " examples"
) -> dict[str, Tensor]:
    """Split the rows 0 to n - 1 among the processes, apply f batch by batch, gather the results on all processes.

    Args:
        at_once: rows in a batch, B.
        f: indices of rows (B,) -> {name: (B, ...)}.
        desc, unit: labels of the progress bar.

    Returns:
        {name: (n, ...)}, on the CPU.

    Raises:
        InputError: there are no rows, or fewer than processes.
    """
    require(n > 0, f"there are no{unit}: raise --limit, or give other data")
    require(world_size() <= n, f"{world_size()} processes cannot share {n}{unit}: start at most {n}")
    indices, results = torch.arange(n)[local_rows()], []
    with progress_bar(total=len(indices), desc=desc, unit=unit) as bar:
        for rows in indices.split(at_once):
            results.append(f(rows))
            bar.update(len(rows))
    return {name: gather_rows(torch.cat([result[name] for result in results])) for name in results[0]}


def on_first_process(make: Callable[[], T]) -> T:
    """Call `make` only on the first process and return its result on all processes."""
    made = [make() if rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(made)
    return made[0]


def average_buffers(model: nn.Module) -> None:
    """Average the model's floating-point buffers (the statistics of batch norm) over the processes, in place."""
    if world_size() > 1:
        for x in model.buffers():
            if x.is_floating_point():
                sum_over_processes(x).div_(world_size())
