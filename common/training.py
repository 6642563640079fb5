"""The training loop: annealing, model selection, early stopping, exact resumption."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import plots
from common.checkpoints import BEST, LAST, save
from common.data import Examples
from common.devices import select
from common.errors import InputError
from common.models import MultimodalVAE
from common.objectives import Bound
from common.runs import Run, RunConfig

PICTURES_EVERY = 60.0  # seconds between pictures while training goes on


def annealed(step: int, annealing_steps: int) -> float:
    """beta of a step (from 0): rises linearly, minibatch by minibatch, to 1 at the last annealing step."""
    return min(1.0, (step + 1) / annealing_steps) if annealing_steps else 1.0


class Meter:
    """Running means of a bound and its terms over examples; stops at the first that is not finite.

    Batches are looked at a few at a time, so that a GPU need not wait for each.
    """

    def __init__(self, sums: dict[str, float] | None = None, n: int = 0) -> None:
        self.sums, self.n = dict(sums or {}), n
        self.names: list[str] = []
        self.pending: list[tuple[Tensor, int]] = []

    def add(self, bound: Bound, size: int) -> None:
        self.names = ["bound", *bound.terms]
        self.pending.append((torch.stack([bound.value, *bound.terms.values()]).detach().sum(dim=1), size))

    def check(self, where: str, remedy: str) -> dict[str, float]:
        """The means so far.

        Raises:
            InputError: a term is not finite; names the first such batch's terms.
        """
        if self.pending:
            sums = torch.stack([row for row, _ in self.pending]).double().cpu()  # (batches, 1 + terms)
            if not sums.isfinite().all():
                bad = sums[(~sums.isfinite()).any(dim=1)][0]
                terms = ", ".join(
                    f"{n} = {v}" for n, v in zip(self.names, bad.tolist(), strict=True) if not abs(v) < float("inf")
                )
                raise InputError(f"the loss is not finite {where}: {terms}; {remedy}")
            for name, value in zip(self.names, sums.sum(dim=0).tolist(), strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.n += sum(size for _, size in self.pending)
            self.pending.clear()
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


def evaluate(objective: nn.Module, examples: Examples, batch_size: int, seed: int) -> dict[str, float]:
    """Means of the bound and its terms at beta = 1, always with the same latent noise."""
    meter = Meter()
    objective.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for batch in examples.batches(batch_size):
            meter.add(objective.bound(batch), len(batch))
    objective.train()
    return meter.check("on the validation examples", "the checkpoints so far are kept: try a smaller --lr")


def fit(
    model: MultimodalVAE,
    objective: nn.Module,
    train: Examples,
    valid: Examples | None,
    config: RunConfig,
    run: Run,
    pictures: Callable[[Path], None],
) -> None:
    """Maximise the objective's bound with Adam.

    The best model is the one with the highest bound (weights as trained, beta = 1) on the validation examples, the
    last one without any. The save-dir is brought up to date after every epoch.

    Args:
        train, valid: the splits; moved to the model's device as a whole.
        config: needs epochs, annealing_epochs, batch_size and lr beside the common options.
        pictures: writes sample pictures into a folder; called now and then, and at the end.

    Raises:
        InputError: the loss is not finite, or a file cannot be written; the last good checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of this very batch saved.
    """
    device = select(config.cuda)
    train, valid = train.to(device), valid.to(device) if valid else None
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.lr, fused=True)
    state: dict[str, Any] = {"epoch": 0, "batch": 0, "sums": {}, "n": 0, "seconds": 0.0, "best": None, "best_epoch": 0}
    if run.checkpoint:
        state = {name: run.checkpoint[name] for name in state}
        model.load_state_dict(run.checkpoint["state_dict"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        _set_rng(run.checkpoint["rng"])
        print(f"resuming after epoch {state['epoch']}, batch {state['batch']}")
    n_batches = -(-len(train) // config.batch_size)
    drawn = time.monotonic()

    def snapshot() -> dict[str, Any]:
        return {
            **run.about,
            **state,
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": _rng(),
        }

    with CtrlC() as ctrl_c:
        objective.train()
        while state["epoch"] < config.epochs and not _out_of_patience(state, config.patience):
            epoch = state["epoch"] + 1
            order = torch.randperm(len(train), generator=_generator(config.seed, epoch)).to(device)
            meter = Meter(state["sums"], state["n"])
            started, seen = time.monotonic(), 0
            first = state["batch"]
            bar = tqdm(
                total=len(train), initial=meter.n, unit=" examples", desc=f"epoch {epoch}", disable=None, leave=False
            )
            with bar:
                for b, batch in enumerate(train.batches(config.batch_size, order)):
                    if b < first:
                        continue
                    beta = annealed((epoch - 1) * n_batches + b, config.annealing_epochs * n_batches)
                    bound = objective.bound(batch, beta)
                    optimizer.zero_grad()
                    (-bound.value.mean()).backward()
                    optimizer.step()
                    meter.add(bound, len(batch))
                    seen += len(batch)
                    if (b + 1) % config.log_interval == 0 or b + 1 == n_batches or ctrl_c.asked:
                        where = f"at epoch {epoch}, batch {b + 1} or shortly before"
                        means = meter.check(where, f"the last good checkpoint in {run.dir} is kept: try a smaller --lr")
                        bar.update(meter.n - bar.n)
                        bar.set_postfix(
                            {name: f"{value:.1f}" for name, value in means.items()} | {"beta": f"{beta:.2f}"}
                        )
                    if ctrl_c.asked and b + 1 < n_batches:
                        state |= {"batch": b + 1, "sums": meter.sums, "n": meter.n}
                        state["seconds"] += time.monotonic() - started
                        save(run.dir / LAST, snapshot())
                        print(f"stopped in epoch {epoch}; --resume goes on from {run.dir / LAST}", file=sys.stderr)
                        raise KeyboardInterrupt
            if device.type == "cuda":
                torch.cuda.synchronize()
            elapsed = time.monotonic() - started
            line = {
                "epoch": epoch,
                "train": means,
                "valid": evaluate(objective, valid, config.batch_size, config.seed) if valid else None,
                "beta": beta,
                "lr": config.lr,
                "seconds": state["seconds"] + elapsed,
                "examples_per_second": seen / elapsed,
            }
            line = {name: value for name, value in line.items() if value is not None}
            score = line["valid"]["bound"] if valid else float(epoch)
            state |= {"epoch": epoch, "batch": 0, "sums": {}, "n": 0, "seconds": 0.0}
            better = state["best"] is None or score > state["best"]
            if better:
                state |= {"best": score, "best_epoch": epoch}
            run.log(line)
            _report(line, config.epochs, better and valid is not None)
            checkpoint = snapshot()
            if better:
                save(
                    run.dir / BEST,
                    {name: value for name, value in checkpoint.items() if name not in ("optimizer", "rng")},
                )
            save(run.dir / LAST, checkpoint)
            finished = epoch == config.epochs or _out_of_patience(state, config.patience)
            if finished or time.monotonic() - drawn > PICTURES_EVERY:
                _draw(objective, run, config.seed, pictures)
                drawn = time.monotonic()
            if ctrl_c.asked:
                print(f"stopped after epoch {epoch}; --resume goes on from {run.dir / LAST}", file=sys.stderr)
                raise KeyboardInterrupt
    print(f"best epoch {state['best_epoch']} of {state['epoch']}: {run.dir / BEST}; pictures in {run.samples}")


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _out_of_patience(state: dict[str, Any], patience: int | None) -> bool:
    return patience is not None and state["epoch"] - state["best_epoch"] >= patience


def _report(line: dict[str, Any], epochs: int, better: bool) -> None:
    valid = f"  valid {line['valid']['bound']:.2f}{' *' if better else '  '}" if "valid" in line else ""
    print(
        f"epoch {line['epoch']}/{epochs}  bound {line['train']['bound']:.2f}{valid}  beta {line['beta']:.2f}"
        f"  {line['examples_per_second']:,.0f} examples/s",
        flush=True,
    )


def _draw(objective: nn.Module, run: Run, seed: int, pictures: Callable[[Path], None]) -> None:
    objective.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        pictures(run.samples)
    objective.train()
    plots.loss_curves(run.dir / "loss.png", run.metrics)


def _rng() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _set_rng(rng: dict[str, Any]) -> None:
    torch.set_rng_state(rng["cpu"])
    if torch.cuda.is_available() and rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"])
