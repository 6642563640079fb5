"""Time implementations in alternating turns, and measure the machine's peak rate."""

import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from common.errors import require

import torch
from torch.utils.flop_counter import FlopCounterMode

Turn = Callable[[], object]


class Times(NamedTuple):
    """What an implementation took.

    seconds: of each turn that counts.
    memory: peak memory of the process in GiB, on the GPU if it uses one.
    """

    seconds: list[float]
    memory: float

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)


def check_rounds(rounds: int) -> None:
    """Raise InputError unless a turn is left beside the first one, which warms up."""
    require(rounds > 1, f"--rounds must be 2 or more, since the first turn does not count: it is {rounds}")


def race(makers: Mapping[str, Callable[[], Turn]], rounds: int) -> dict[str, Times]:
    """Time turns of several implementations, alternating, each in its own process.

    Settings of the process, such as memory allocation and matrix products, then do not affect the others.

    Args:
        makers: picklable functions by name; each is called in its process and returns the turn.
        rounds: turns of each; the first one warms up and is not counted.

    Raises:
        InputError: too few rounds.
    """
    check_rounds(rounds)
    context = multiprocessing.get_context("spawn")
    ends, processes = {}, []
    for name, make in makers.items():
        ends[name], theirs = context.Pipe()
        processes.append(context.Process(target=_take_turns, args=(make, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
    times = {name: [] for name in makers}
    for _ in range(rounds):
        for name, end in ends.items():
            end.send(True)
            times[name].append(end.recv())
    memory = {}
    for (name, end), process in zip(ends.items(), processes, strict=True):
        end.send(False)
        memory[name] = end.recv()
        process.join()
    return {name: Times(seconds[1:], memory[name]) for name, seconds in times.items()}


def _take_turns(make: Callable[[], Turn], end: Connection) -> None:
    torch.manual_seed(0)
    torch.set_flush_denormal(True)  # in each, as `devices.select` does; random images lead to many
    turn = make()
    while end.recv():
        end.send(timed(turn))
    end.send(most_memory())


def ratio(slower: Times, faster: Times) -> tuple[float, float, float]:
    """The ratio of the turns of each round: median, minimum, maximum."""
    ratios = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def operations(turn: Turn) -> int:
    """Operations of a turn's products and convolutions, forward and backward; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        turn()
    return counter.get_total_flops()


def most_memory() -> float:
    """Peak memory of this process in GiB, on the GPU if it uses one."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the memory of the parent process too
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def peak(device: torch.device, precision: str = "fp32") -> float:
    """Operations a second of a large convolution or product, whichever is faster, in "fp32" or "bf16"."""
    batch, side = (100, 2048) if device.type == "cpu" else (1000, 8192)
    kind = {"device": device, "dtype": torch.bfloat16 if precision == "bf16" else torch.float32}
    x, weight = torch.randn(batch, 128, 28, 28, **kind), torch.randn(128, 128, 3, 3, **kind)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    a = torch.randn(side, side, **kind)
    works = ((lambda: torch.conv2d(x, weight), 2 * batch * 26**2 * weight.numel()), (lambda: a @ a, 2 * side**3))
    return max(n / min(timed(work) for _ in range(10)) for work, n in works)


def machine(cuda: bool = False) -> str:
    """The machine in words: GPU, architecture, threads, version of torch."""
    gpu = f"{torch.cuda.get_device_name()}, " if cuda else ""
    return f"{gpu}{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def timed(work: Turn) -> float:
    """Seconds that the work takes, on the GPU too."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start
