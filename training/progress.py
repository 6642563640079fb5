"""How far a training has come: what a checkpoint keeps of it, and what the terminal shows."""

import math
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from common import distributed

MAX_TERMS = 12  # that fit beside a progress bar


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
