"""Where the time of our training steps goes, layer by layer, and what each operation reaches alone.

    python -m tools.benchmarks.operations                     all experiments
    python -m tools.benchmarks.operations mnist "cub, images" --rows 20
    python -m tools.benchmarks.operations celeba19 --precision bf16

Every operation of a step is timed where it runs. Then it is repeated alone on random numbers of the same shapes: as it
is, in other memory layouts, without oneDNN, on one thread, and convolutions also as matrix products (im2col). The sum
of the shortest times of all operations, alone or in the step, is what the step could reach without overhead and with
the best known kernels; the arithmetic limit is that of `python -m tools.benchmarks`, in the same precision.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import fold, unfold
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from common.errors import require_positive
from tools.benchmarks.experiments import CPU, EXPERIMENTS, our_turn
from tools.benchmarks.race import machine, peak, timed
from training import devices, run_from_command_line

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
PRODUCTS = (*CONVOLUTIONS, aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)
# parts of a step that are no layers, by the names of the functions that run their operations
FUNCTIONS = {
    "sampling": ("rsample", "sample", "sample_components"),
    "densities and KLs": ("log_prob", "log_prob_of_each", "component_log_probs", "kl_divergence"),
    "gradient's norm and optimiser": ("total_norm", "_fused_adam"),
    "experts": ("product_of_experts",),
}
REST = "everything else"


@dataclass
class Config:
    """The options of the benchmark."""

    experiments: tyro.conf.Positional[
        Annotated[tuple[Literal[tuple(EXPERIMENTS)], ...], tyro.conf.arg(metavar="EXPERIMENT")]
    ] = tuple(EXPERIMENTS)
    """folders to measure"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks"""
    rounds: int = 3
    """turns of the step, and repetitions of each operation alone; the shortest time counts"""
    rows: int = 16
    """rows of an experiment's table, the parts that take longest; the others are added up"""


def main(config: Config) -> None:
    """Print a table for each experiment, and one of all."""
    require_positive(config, "rounds", "rows")
    devices.select(cuda=False)
    rate = peak(CPU, config.precision)
    print(f"{machine()}; limit {rate / 1e9:,.0f} GFLOP/s ({config.precision})")
    rows = []
    for name in config.experiments:
        turn, n_steps = our_turn(name, precision=config.precision), EXPERIMENTS[name].steps
        turn()
        step = min(timed(turn) for _ in range(config.rounds)) / n_steps
        operations = recorded(turn, n_steps, config.rounds)
        best = shortest(operations, config.rounds, name)
        print_parts(name, operations, best, config.rows)
        arithmetic = sum(operation.calls * operation.flops for operation in operations) / rate
        at_best = sum(operation.calls * seconds for operation, (seconds, _) in zip(operations, best, strict=True))
        inside = sum(operation.seconds for operation in operations)
        rows.append((name, step, inside, at_best, arithmetic))
    print(
        "\n| | a step, ms | its operations, ms | each at its best, ms | share of the step | "
        "arithmetic limit, ms | share of the step |"
        "\n|---|---|---|---|---|---|---|"
    )
    for name, step, *times in rows:
        inside, at_best, arithmetic = (f"{1000 * x:,.1f}" for x in times)
        shares = [f"{x / step:.0%}" for x in times[1:]]
        print(f"| {name} | {1000 * step:,.1f} | {inside} | {at_best} | {shares[0]} | {arithmetic} | {shares[1]} |")


def print_parts(name: str, operations: Sequence["Operation"], best: Sequence[tuple[float, str]], n_rows: int) -> None:
    """The table of one experiment: its layers, forward and backward, and the other parts of the step.

    Args:
        best: of each operation, the shortest seconds of a call, and how.
    """

    def row(*cells: str) -> None:
        print(f"| {' | '.join(cells)} |")

    parts = defaultdict(list)
    for operation, shortest_call in zip(operations, best, strict=True):
        parts[operation.part].append((operation, *shortest_call))
    total = sum(operation.seconds for operation in operations)

    def cells(members: Sequence[tuple["Operation", float, str]]) -> list[str]:
        seconds = sum(operation.seconds for operation, *_ in members)
        at_best = sum(operation.calls * shortest_call for operation, shortest_call, _ in members)
        gflop = sum(operation.calls * operation.flops for operation, *_ in members) / 1e9
        rates = [f"{gflop / x:,.0f}" if gflop else "" for x in (seconds, at_best)]
        return [f"{1e3 * seconds:,.2f}", f"{seconds / total:.0%}", rates[0], f"{1e3 * at_best:,.2f}", rates[1]]

    ranked = sorted(parts.items(), key=lambda part: -sum(operation.seconds for operation, *_ in part[1]))
    print()
    row(name, "ms", "share", "GFLOP/s", "at its best, ms", "GFLOP/s", "its longest operation", "best")
    row(*8 * ["---"])
    for part, members in ranked[:n_rows]:
        longest, _, how = max(members, key=lambda member: member[0].seconds)
        row(part, *cells(members), str(longest), how)
    others = [member for _, members in ranked[n_rows:] for member in members]
    if others:
        row(f"{len(ranked) - n_rows} others", *cells(others), "", "")


@dataclass(frozen=True)
class Like:
    """Shape, strides and type of a tensor of floating-point numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def random(self) -> Tensor:
        """Such a tensor of positive numbers."""
        n = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        return torch.empty(max(n, 0), dtype=self.dtype).uniform_(0.1, 1).as_strided(self.shape, self.strides)

    def __repr__(self) -> str:
        return "x".join(map(str, self.shape)) or "1"


class Operation(NamedTuple):
    """One operation of a step.

    part: of the step: a layer, forward or backward, or one of `FUNCTIONS`.
    arguments: positional and named ones, floating-point tensors as `Like`.
    calls: in one step, a mean over the steps; seconds: that they take there together.
    flops: of one call, 0 for what is no product.
    """

    part: str
    function: torch._ops.OpOverload
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    calls: float
    seconds: float
    flops: int

    def __str__(self) -> str:
        shapes = [str(x) for x in tree_flatten(self.arguments)[0] if isinstance(x, Like)]
        name = self.function._overloadpacket.__name__
        if self.function in CONVOLUTIONS and self.arguments[0][CONVOLUTIONS.index(self.function) + 6]:
            name = f"transposed {name}"
        return f"{name.replace('_', ' ').strip()}, {', '.join(shapes[:3])}{', ...' * (len(shapes) > 3)}"


Key = tuple[str, str, str]  # the part of a step, an operation, and its shapes


class Recorder(TorchDispatchMode):
    """Times each operation that runs under it: {key: seconds of each call}."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[Key, list[float]] = defaultdict(list)
        self.seen: dict[Key, tuple[Any, ...]] = {}
        self.parts: dict[int, str] = {}  # by the sequence number of the node that computes the gradient

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        arguments = tree_map_only(Tensor, _described, (args, dict(kwargs or {})))
        key = self._part(), str(func), repr(arguments)
        self.seconds[key].append(seconds)
        if key not in self.seen:
            count = flop_registry.get(func._overloadpacket)
            self.seen[key] = func, arguments, count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out

    def _part(self) -> str:
        """The part of the step that runs now; in the backward pass, that whose gradient it is."""
        node = torch._C._current_autograd_node()
        if node is not None:
            part = self.parts.get(node._sequence_nr(), REST)
            return part if part == REST else f"{part}, backward"
        part = _running()
        self.parts.setdefault(torch._C._autograd._get_sequence_nr() - 1, part)  # of the node made for this operation
        return part


def _running() -> str:
    """The innermost layer, or function of `FUNCTIONS`, that is running."""
    frame = sys._getframe(3)
    while frame is not None:
        code = frame.f_code
        for part, names in FUNCTIONS.items():
            if code.co_name in names:
                return part
        module = frame.f_locals["self"] if code.co_varnames[:1] == ("self",) else None
        if isinstance(module, nn.Module) and not any(module.children()) and code.co_name == "forward":
            return str(module) if any(True for _ in module.parameters()) else "activations"
        frame = frame.f_back
    return REST


def _described(x: Tensor) -> Tensor | Like:
    return Like(tuple(x.shape), x.stride(), x.dtype) if x.is_floating_point() else x.clone()


def recorded(turn: Callable[[], object], n_steps: int, rounds: int) -> list[Operation]:
    """The operations of one step, the longest first, as in the fastest of several turns of n steps."""
    recorders = []
    for _ in range(rounds):
        with Recorder() as recorder:
            turn()
        recorders.append(recorder)
    fastest = min(recorders, key=lambda recorder: sum(map(sum, recorder.seconds.values())))
    operations = [
        Operation(key[0], function, arguments, len(times) / n_steps, sum(times) / n_steps, flops)
        for (key, times), (function, arguments, flops) in zip(
            fastest.seconds.items(), fastest.seen.values(), strict=True
        )
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)


def shortest(operations: Sequence[Operation], rounds: int, title: str) -> list[tuple[float, str]]:
    """Of each operation the shortest seconds of a call, and how: "in the step", or the name of the variant alone."""
    best: dict[tuple[str, str], tuple[float, str]] = {}
    keys = [(str(operation.function), repr(operation.arguments)) for operation in operations]  # some change in place
    for operation, key in zip(tqdm(operations, desc=title, unit=" operations"), keys, strict=True):
        if key not in best:
            times = {}
            for name, run in variants(operation):
                run()
                times[name] = min(timed(run) for _ in range(rounds))
            how = min(times, key=times.get)
            best[key] = times[how], how
    inside = [(operation.seconds / operation.calls, "in the step") for operation in operations]
    return [min(best[key], in_step) for key, in_step in zip(keys, inside, strict=True)]


def variants(operation: Operation) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to compute an operation, by name."""
    args, kwargs = tree_map_only(Like, Like.random, operation.arguments)
    as_it_is = lambda: operation.function(*args, **kwargs)  # noqa: E731 (it is one of several)
    yield "as it is", as_it_is
    if operation.function not in PRODUCTS:
        return
    yield "without oneDNN", _within(_without_onednn, as_it_is)
    if torch.get_num_threads() > 1:
        yield "one thread", _within(_one_thread, as_it_is)
    if operation.function not in CONVOLUTIONS:
        return
    for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        laid = [x.contiguous(memory_format=layout) if isinstance(x, Tensor) and x.dim() == 4 else x for x in args]
        yield name, lambda laid=laid: operation.function(*laid, **kwargs)
    yield "as products", lambda: as_products(operation.function, args)


def as_products(function: torch._ops.OpOverload, args: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """A convolution, or its gradients for input and weight where they are wanted, by im2col and matrix products."""
    backward = function is aten.convolution_backward.default
    g = args[0] if backward else None
    x, weight, _, stride, padding, _, transposed, output_padding = args[backward : backward + 8]
    kernel, flat = weight.shape[2:], weight.flatten(1)  # (out, in * kernel), transposed (in, out * kernel)
    windows = {"kernel_size": kernel, "stride": stride, "padding": padding}
    if not backward:
        if not transposed:
            y = flat @ unfold(x, **windows)
            n = zip(x.shape[2:], kernel, stride, padding, strict=True)
            return (y.unflatten(2, [(size + 2 * pad - k) // step + 1 for size, k, step, pad in n]),)
        n = zip(x.shape[2:], kernel, stride, padding, output_padding, strict=True)
        size = [(size - 1) * step - 2 * pad + k + extra for size, k, step, pad, extra in n]
        return (fold(flat.T @ x.flatten(2), size, **windows),)
    wide, narrow = (g, x) if transposed else (x, g)  # the side that the windows lie on, and the other
    columns, narrow = unfold(wide, **windows), narrow.flatten(2)  # (N, C * kernel, L), (N, C', L)
    of_input = None
    if args[-1][0]:
        of_input = (flat @ columns).view_as(x) if transposed else fold(flat.T @ narrow, x.shape[2:], **windows)
    rows = narrow.transpose(0, 1).flatten(1), columns.transpose(0, 1).flatten(1)
    return of_input, (rows[0] @ rows[1].T).view_as(weight) if args[-1][1] else None


def _within(manager: Callable[[], AbstractContextManager], run: Callable[[], object]) -> Callable[[], object]:
    def inside() -> None:
        with manager():
            run()

    return inside


@contextmanager
def _without_onednn() -> Iterator[None]:
    torch.backends.mkldnn.enabled = False  # its `flags` would change the precision of products too
    yield
    torch.backends.mkldnn.enabled = True


@contextmanager
def _one_thread() -> Iterator[None]:
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
