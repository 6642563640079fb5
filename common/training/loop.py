"""The training loop: annealing, model selection, early stopping, exact resumption."""

import hashlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import distributed
from common.checkpoints import BEST, LAST, save, start_from
from common.data import streams
from common.data.batches import Examples
from common.data.streams import Stream
from common.errors import require
from common.objectives.base import Bound, Objective
from common.reporting import plots
from common.training.options import RunConfig
from common.training.runs import Run
from common.training.steps import CapturedStep, Step

PICTURES_EVERY = 60.0  # seconds between pictures while training goes on
SHOWN = 12  # terms that fit beside a progress bar
EVALUATED_AT_ONCE = 500  # examples: without gradients there is room for more than training's batch
DIVERGED = "checkpoints so far are kept: try a smaller --lr, in another --save-dir"
START_OF_EPOCH = {"batch": 0, "sums": {}, "n": 0, "seconds": 0.0}


def annealed(step: int, annealing_steps: int) -> float:
    """beta of a step (from 0): rises linearly, minibatch by minibatch, to 1 at the last annealing step."""
    return min(1.0, (step + 1) / annealing_steps) if annealing_steps else 1.0


class Meter:
    """Running means of a bound and its terms over the examples of all processes; stops at the first not finite.

    Batches are looked at a few at a time, so that a GPU need not wait for each.
    """

    def __init__(self, sums: dict[str, float] | None = None, n: int = 0) -> None:
        self.sums, self.n = dict(sums or {}), n
        self.names = list(self.sums)
        self.pending: list[Tensor] = []
        self.n_pending = 0

    def add(self, bound: Bound, n: int) -> None:
        """A batch of n examples, of this process's part."""
        self.names = ["bound", *bound.terms]
        self.n_pending += n
        self.pending.append(torch.stack([bound.value, *bound.terms.values()]).detach().sum(dim=1))

    def check(self, where: str) -> dict[str, float]:
        """The means so far. All processes have to ask at the same batches.

        Raises:
            InputError: a term is not finite; names the first such batch's terms.
        """
        nothing = torch.zeros(0, len(self.names))
        sums = (torch.stack(self.pending) if self.pending else nothing).double().cpu()  # (batches, 1 + terms)
        total = distributed.summed(torch.cat([sums.sum(dim=0), torch.tensor([self.n_pending]).double()]))
        bad = [*sums[~sums.isfinite().all(dim=1)], total[:-1]][0].tolist()
        terms = [f"{name} = {x}" for name, x in zip(self.names, bad, strict=True) if not math.isfinite(x)]
        require(not terms, f"the loss is not finite {where}: {', '.join(terms)}; {DIVERGED}")
        for name, value in zip(self.names, total.tolist()[:-1], strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n += int(total[-1])
        self.pending.clear()
        self.n_pending = 0
        return {name: value / self.n for name, value in self.sums.items()}


class CtrlC:
    """While open, the first Ctrl-C only asks to stop, so that a step is never cut in two; the second stops at once."""

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
        print("\nstopping after this batch (Ctrl-C again: at once)", file=sys.stderr)


def evaluate(objective: Objective, examples: Examples | Stream, seed: int) -> dict[str, float]:
    """Means of the bound and its terms at beta = 1, always with the same latent noise."""
    meter = Meter()
    objective.eval()
    with _own_noise(seed + distributed.rank(), next(objective.parameters()).device), torch.no_grad():
        own = torch.arange(len(examples), device=examples.device)[distributed.part()]
        for some, index in streams.fed(examples, own.split(EVALUATED_AT_ONCE)):
            meter.add(objective.bound(some[index]), len(index))
    return meter.check("on the validation examples")


def fit(
    model: nn.Module,
    objective: Objective,
    train: Examples,
    valid: Examples | None,
    config: RunConfig,
    run: Run,
    pictures: Callable[[Path], None] | None,
    amsgrad: bool = False,
) -> None:
    """Maximise the objective's bound with Adam.

    The best model is the one with the highest bound (weights as trained, beta = 1) on the validation examples, the
    last one without any. The save-dir is brought up to date after every epoch.

    Args:
        train, valid: the splits; moved to the model's device as a whole where they fit.
        config: needs epochs, annealing_epochs, batch_size and lr beside the common options.
        pictures: writes sample pictures into a folder; called now and then, and at the end. None: no pictures.
        amsgrad: Adam's variant (Reddi et al. 2018).

    Raises:
        InputError: the loss is not finite, or a file cannot be written; the last good checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of this very batch saved.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.lr, amsgrad=amsgrad, fused=True)
    step = Step(objective, optimizer)
    if device.type == "cuda" and config.capture and step.capturable(train):
        step = CapturedStep(step)
    train, valid = streams.placed(train, device), streams.placed(valid, device) if valid else None
    state = {"epoch": 0, **START_OF_EPOCH, "best": -math.inf, "best_epoch": 0, "n_train": len(train)}
    if run.checkpoint:
        before = run.checkpoint["n_train"]
        require(
            before == len(train),
            f"the run had {before} training examples, now there are {len(train)}: check --data-dir",
        )
        state = {name: run.checkpoint[name] for name in state}
        model.load_state_dict(run.checkpoint["state_dict"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        print(f"resuming after epoch {state['epoch']}, batch {state['batch']}")
    elif config.pre_trained:
        start_from(config.pre_trained, model, run.experiment, run.config)
    fewest = min(len(examples) for examples in (train, valid) if examples)
    least = min(fewest, config.batch_size)
    require(distributed.world() <= least, f"{distributed.world()} processes are more than share {least} examples")
    begin = set(distributed.gathered((state["epoch"], state["batch"])))
    require(
        len(begin) == 1, f"the processes go on from different batches: {run.dir} must be a folder that all of them see"
    )
    _begin_draws(run.checkpoint, config.seed, state, device)
    drawn = time.monotonic()

    def save_last() -> None:
        draws = {"rng": distributed.gathered(_rng(device))}
        if run.writes:
            save(run.dir / LAST, run.about | state | weights() | draws | {"optimizer": optimizer.state_dict()})

    def weights() -> dict[str, Any]:
        return {"state_dict": model.state_dict()}

    def stop() -> NoReturn:
        print(f"stopped in epoch {epoch}; --resume goes on from {run.dir / LAST}", file=sys.stderr)
        raise KeyboardInterrupt

    with CtrlC() as ctrl_c:
        while not _finished(state, config):
            epoch = state["epoch"] + 1
            line = {"epoch": epoch} | _train_epoch(objective, step, train, config, state, ctrl_c)
            _require_finite(model, f"at epoch {epoch}")
            distributed.average_buffers(model)
            if state["batch"] * config.batch_size < len(train):
                save_last()
                stop()
            if valid:
                line["valid"] = evaluate(objective, valid, config.seed)
            state |= {"epoch": epoch, **START_OF_EPOCH}
            score = line["valid"]["bound"] if valid else float(epoch)
            better = score > state["best"]
            if better:
                state |= {"best": score, "best_epoch": epoch}
                if run.writes:
                    save(run.dir / BEST, run.about | state | weights())
            run.log(line)
            save_last()
            _report(line, config.epochs, better)
            due = _finished(state, config) or time.monotonic() - drawn > PICTURES_EVERY
            if pictures and due and run.writes:
                _draw(objective, run, config.seed, pictures)
                drawn = time.monotonic()
            if distributed.any_of(ctrl_c.asked):
                stop()
    print(f"best epoch {state['best_epoch']} of {state['epoch']}: {run.dir / BEST}", end="")
    print(f"; pictures in {run.samples}" if pictures else "")


def _train_epoch(
    objective: Objective,
    step: Callable[[Examples, Tensor, int, float], Bound | None],
    train: Examples | Stream,
    config: RunConfig,
    state: dict[str, Any],
    ctrl_c: CtrlC,
) -> dict[str, Any]:
    """Train from the state's batch to the end of its epoch, or until Ctrl-C; returns the epoch's line of metrics."""
    epoch, first = state["epoch"] + 1, state["batch"]
    n_batches = -(-len(train) // config.batch_size)
    order = torch.randperm(len(train), generator=_generator(config.seed, epoch)).to(train.device)
    start = first * config.batch_size
    batches = order[start:].split(config.batch_size)
    meter, started = Meter(state["sums"], state["n"]), time.monotonic()
    bar = {"unit": " examples", "desc": f"epoch {epoch}", "disable": distributed.quiet(), "leave": False}
    progress = tqdm(total=len(train), initial=start, **bar)
    objective.train()
    with progress:
        own = (index[distributed.part()] for index in batches)
        for b, (index, at_hand) in enumerate(zip(batches, streams.fed(train, own), strict=True), start=first):
            beta = config.beta * annealed((epoch - 1) * n_batches + b, config.annealing_epochs * n_batches)
            bound = step(*at_hand, len(index), beta)
            if bound is not None:
                meter.add(bound, len(at_hand[1]))
            due = (b + 1) % config.log_interval == 0 or b + 1 == n_batches
            stopping = distributed.any_of(ctrl_c.asked)
            if due or stopping:
                means = meter.check(f"at epoch {epoch}, batch {b + 1} or shortly before")
                seen = min((b + 1) * config.batch_size, len(train))
                progress.update(seen - progress.n)
                shown = means if len(means) <= SHOWN else {"bound": means["bound"]}
                progress.set_postfix({"beta": f"{beta:.2f}"} | {n: f"{value:.1f}" for n, value in shown.items()})
            if stopping:
                break
    seconds = time.monotonic() - started
    rate = (seen - start) / seconds
    state |= {"batch": b + 1, "sums": meter.sums, "n": meter.n, "seconds": state["seconds"] + seconds}
    return {
        "train": means,
        "beta": beta,
        "lr": config.lr,
        "seconds": state["seconds"],
        "examples_per_second": rate,
    }


def _require_finite(model: nn.Module, where: str) -> None:
    """The loss of a batch says nothing of the step taken after it."""
    broken = [name for name, x in model.named_parameters() if not x.isfinite().all()]
    require(not broken, f"weights are not finite {where}: {', '.join(broken[:3])}; {DIVERGED}")


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _finished(state: dict[str, Any], config: RunConfig) -> bool:
    out_of_patience = config.patience is not None and state["epoch"] - state["best_epoch"] >= config.patience
    return out_of_patience or state["epoch"] >= config.epochs


def _report(line: dict[str, Any], epochs: int, better: bool) -> None:
    valid = f"  valid {line['valid']['bound']:.2f}{' *' if better else '  '}" if "valid" in line else ""
    print(
        f"epoch {line['epoch']}/{epochs}  bound {line['train']['bound']:.2f}{valid}  beta {line['beta']:.2f}"
        f"  {line['examples_per_second']:,.0f} examples/s",
        flush=True,
    )


def _draw(objective: Objective, run: Run, seed: int, pictures: Callable[[Path], None]) -> None:
    objective.eval()
    with _own_noise(seed, next(objective.parameters()).device), torch.no_grad():
        pictures(run.samples)
    plots.loss_curves(run.dir / "loss.png", run.metrics)


@contextmanager
def _own_noise(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed of one's own, and leave the training's random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _begin_draws(checkpoint: dict[str, Any] | None, seed: int, state: dict[str, Any], device: torch.device) -> None:
    """Go on with the draws of a checkpoint, or, of as many processes as it is not of, begin others."""
    if checkpoint and len(checkpoint["rng"]) == distributed.world():
        _set_rng(checkpoint["rng"][distributed.rank()], device)
    elif distributed.world() > 1 or checkpoint:
        place = (seed, state["epoch"], state["batch"], distributed.world(), distributed.rank())
        torch.manual_seed(int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8]))


def _rng(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_rng(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
