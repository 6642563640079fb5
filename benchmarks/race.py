"""Implementations beside each other: turns of each, alternating, and what the machine can do."""

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

Turn = Callable[[], object]


class Result(NamedTuple):
    """seconds: the median turn of each; ratio: the first one's turn over the second one's, median, least and most."""

    seconds: list[float]
    ratio: tuple[float, float, float]


def race(makers: Sequence[Callable[[], Turn]], rounds: int) -> Result:
    """Time turns of two implementations, alternating, each in a process of its own.

    Settings of the process, as of memory and of products, are then each one's own.

    Args:
        makers: picklable, called in the process: they give the turn.
        rounds: turns of each; the first ones warm up and are not counted.
    """
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for make in makers:
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_take_turns, args=(make, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        ends.append(ours)
    times = []
    for _ in range(rounds):
        times.append([])
        for end in ends:
            end.send(True)
            times[-1].append(end.recv())
    for end, process in zip(ends, processes, strict=True):
        end.send(False)
        process.join()
    ratios = sorted(first / second for first, second in times[1:])
    seconds = [statistics.median(column) for column in zip(*times[1:], strict=True)]
    return Result(seconds, (statistics.median(ratios), ratios[0], ratios[-1]))


def _take_turns(make: Callable[[], Turn], end: Connection) -> None:
    torch.manual_seed(0)
    turn = make()
    while end.recv():
        end.send(timed(turn))


def operations(turn: Turn) -> int:
    """Those of products and convolutions, forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        turn()
    return counter.get_total_flops()


def machine() -> str:
    """What the figures are of."""
    x, weight = torch.randn(100, 128, 28, 28), torch.randn(128, 128, 3, 3)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    peak = 2e-9 * 100 * 26**2 * weight.numel() / min(timed(lambda: torch.conv2d(x, weight)) for _ in range(10))
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"a large convolution in fp32 reaches {peak:.0f} GFLOP/s"
    )


def timed(work: Turn) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
