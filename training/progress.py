"""How far a training has come: what a checkpoint keeps of it, running means, what the terminal shows, and Ctrl-C."""

import math
import signal
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common import distributed
from common.errors import Diverged
from common.objectives.base import Bound

MAX_TERMS = 12  # that fit beside a progress bar
DIVERGED = (
    "checkpoints so far are kept: try a smaller --lr in another --save-dir, or look for extreme values in the data"
)


@dataclass(kw_only=True)
class Progress:
    """How far a training has come; a checkpoint holds these fields.

    Attributes:
        epoch: epochs that are finished.
        batch: batches of the next epoch that are finished.
        sums, n: the bound and its terms in nats, summed over the n examples of these batches.
        seconds: what these batches took.
        best, best_epoch: the highest score of an epoch, and that epoch.
        n_train: training examples.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    n: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    n_train: int

    def end_epoch(self) -> None:
        """Count the epoch under way as finished."""
        self.epoch += 1
        self.batch, self.sums, self.n, self.seconds = 0, {}, 0, 0.0

    def take_score(self, score: float) -> bool:
        """Whether the score of the epoch just finished is the best so far, which is then remembered."""
        is_best = score > self.best
        if is_best:
            self.best, self.best_epoch = score, self.epoch
        return is_best


class Meter:
    """Running means of a bound and its terms over the examples of all processes, in nats.

    Sums wait on the device until `means` reads them, so that a GPU need not wait after each batch.

    Args:
        sums, n: the bound and its terms, summed over n examples that were seen before.
    """

    def __init__(self, sums: dict[str, float] | None = None, n: int = 0) -> None:
        self.sums, self.n = dict(sums or {}), n
        self.names = list(self.sums)
        self.pending: list[Tensor] = []  # sums of each batch since the last means and its norm, (1 + terms + 1,)
        self.n_pending = 0

    def add(self, bound: Bound, n: int, norm: Tensor | None = None) -> None:
        """Add this process's n examples of a batch, and the norm of the batch's gradient."""
        self.names = ["bound", *bound.terms]
        self.n_pending += n
        sums = torch.stack([bound.value, *bound.terms.values()]).detach().sum(dim=1)
        self.pending.append(torch.cat([sums, (sums.new_zeros(()) if norm is None else norm)[None].to(sums)]))

    def means(self, when: str) -> dict[str, float]:
        """Return the means so far. All processes must call it at the same batches.

        Raises:
            InputError: a value is not finite; the error names `when` and the terms of the first such batch.
        """
        nothing, names = torch.zeros(0, len(self.names) + 1), [*self.names, "norm of the gradient"]
        sums = (torch.stack(self.pending) if self.pending else nothing).double().cpu()  # (batches, 1 + terms + 1)
        total = distributed.sum_over_processes(torch.cat([sums.sum(dim=0), torch.tensor([self.n_pending]).double()]))
        suspect = [*sums[~sums.isfinite().all(dim=1)], total[:-1]][0].tolist()
        broken = [f"{name} = {x}" for name, x in zip(names, suspect, strict=True) if not math.isfinite(x)]
        if broken:
            raise Diverged(f"the loss is not finite {when}: {', '.join(broken)}; {DIVERGED}")
        for name, value in zip(self.names, total.tolist()[:-2], strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n += int(total[-1])
        self.pending.clear()
        self.n_pending = 0
        return {name: value / self.n for name, value in self.sums.items()}


def progress_bar(epoch: int, start: int, n: int) -> tqdm:
    """A progress bar over an epoch's n examples; `start` of them were seen before."""
    options = {"unit": " examples", "desc": f"epoch {epoch}", "leave": False}
    return distributed.progress(total=n, initial=start, **options)


def show_means(bar: tqdm, beta: float, means: dict[str, float]) -> None:
    """Show the means so far beside the progress bar; only the bound if there are many terms."""
    shown = means if len(means) <= MAX_TERMS else {"bound": means["bound"]}
    bar.set_postfix({"beta": f"{beta:.2f}"} | {name: f"{value:.1f}" for name, value in shown.items()}, refresh=False)


def report_epoch(line: dict[str, Any], epochs: int, is_best: bool) -> None:
    """Print an epoch's metrics."""
    valid = f"  valid {line['valid']['bound']:.2f}{' *' if is_best else '  '}" if "valid" in line else ""
    print(
        f"epoch {line['epoch']}/{epochs}  bound {line['train']['bound']:.2f}{valid}  beta {line['beta']:.2f}"
        f"  {line['examples_per_second']:,.0f} examples/s",
        flush=True,
    )


class CtrlC:
    """While open, the first Ctrl-C only sets `asked`, so that no step is cut in two; the second stops at once."""

    asked = False

    def __enter__(self) -> "CtrlC":
        self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if distributed.rank() == 0:
            print("\nstopping after this batch (Ctrl-C again: at once)", file=sys.stderr)
