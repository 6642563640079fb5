"""The training loop: annealing, model selection, early stopping, exact resumption, Ctrl-C."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoints import BEST, LAST, check_fit, start_from
from common.data.batches import Examples
from common.encoders_decoders import evaluation_mode
from common.errors import Diverged, require
from common.execution import processes, random_states
from common.execution.cuda_graphs import CapturedStep
from common.io import save_tensors
from common.objectives.base import Bound, Objective
from common.progress import progress_bar
from reports import training_curves
from training import optimizers, streams
from training.options import RunConfig
from training.runs import CURVES, REMEDY, Callback, Progress, Run, report_epoch
from training.steps import DIVERGED, Step, require_finite

import msgspec
import torch
from torch import Tensor, nn
from tqdm import tqdm

Split = Examples | streams.Stream
PICTURES_EVERY = 60.0  # seconds between pictures during training
EVALUATION_BATCH = 500  # examples: without gradients there is room for more than training's batch
MAX_TERMS = 12  # terms that fit beside a progress bar


def annealed(step: int, annealing_steps: int) -> float:
    """The share of --beta at a step (from 0), which rises linearly with the steps to 1 at the last annealing step."""
    return min(1.0, (step + 1) / annealing_steps) if annealing_steps else 1.0


def validation_means(objective: Objective, examples: Split, seed: int, beta: float) -> dict[str, float]:
    """Means of the bound and its terms, in nats, always with the same latent noise."""
    meter, device = Meter(), next(objective.parameters()).device
    with evaluation_mode(objective), random_states.fixed_noise(seed + processes.rank(), device), torch.no_grad():
        rows = torch.arange(len(examples), device=examples.device)[processes.local_rows()]
        for loaded, index in streams.feed(examples, rows.split(EVALUATION_BATCH)):
            meter.add(objective.bound(loaded[index], beta), len(index))
    return meter.means("on the validation examples")


class Meter:
    """Running means of a bound and its terms over the examples of all processes, in nats.

    Sums wait on the device until `means` reads them, so that a GPU need not wait after each batch.

    Args:
        sums, n: the bound and its terms, summed over n examples that were seen before.
    """

    def __init__(self, sums: dict[str, float] | None = None, n: int = 0) -> None:
        self.sums, self.n = dict(sums or {}), n
        self.names = list(self.sums)
        self.pending: list[Tensor] = []  # of each batch since the last means its sums, its norm and its n

    def add(self, bound: Bound, n: int, norm: Tensor | None = None) -> None:
        """Add this process's n examples of a batch, and the norm of the batch's gradient."""
        self.names = ["bound", *bound.terms]
        sums = torch.stack([bound.value, *bound.terms.values()]).detach().sum(dim=1)
        norm = sums.new_zeros(()) if norm is None else norm.to(sums)
        self.pending.append(torch.cat([sums, norm[None], sums.new_full((1,), n)]))

    def means(self, when: str) -> dict[str, float]:
        """Return the means so far. All processes must call it at the same batches.

        Raises:
            InputError: a value is not finite; the error names `when` and the terms of the first such batch.
        """
        nothing, names = torch.zeros(0, len(self.names) + 2), [*self.names, "norm of the gradient", "examples"]
        rows = (torch.stack(self.pending) if self.pending else nothing).double().cpu()  # (batches, 1 + terms + 2)
        total = processes.sum_over_processes(rows.sum(dim=0))
        suspect = [*rows[~rows.isfinite().all(dim=1)], total][0].tolist()
        broken = [f"{name} = {x}" for name, x in zip(names, suspect, strict=True) if not math.isfinite(x)]
        if broken:
            raise Diverged(f"the loss is not finite {when}: {', '.join(broken)}; {DIVERGED}")
        for name, value in zip(self.names, total.tolist()[:-2], strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n += int(total[-1])
        self.pending.clear()
        return {name: value / self.n for name, value in self.sums.items()}


@dataclass(eq=False, repr=False)
class Trainer:
    """A training run, which maximises the objective's bound.

    The best model has the highest bound on the validation examples (with --beta and the weights as trained); without
    validation examples it is the last one. The save-dir is brought up to date after every epoch.

    Args:
        train, valid: the splits; moved to the model's device where they fit, streamed to it otherwise.
        draw: writes sample pictures into a folder, at most once a minute and at the end; None for no pictures.
        callbacks: called after each epoch by all processes, with the checkpoint saved and the model in evaluation mode.
            Their random draws do not change those of the training.
    """

    model: nn.Module
    objective: Objective
    train: Split
    valid: Split | None
    config: RunConfig
    run: Run
    draw: Callable[[Path], None] | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        config, train = self.config, self.train
        self.device = next(self.model.parameters()).device
        self.optimizer = optimizers.make(config, self.objective.parameters(), self.device)
        self.step = Step(self.objective, self.optimizer, config.max_grad_norm)
        if self.device.type == "cuda" and self.step.capturable(train):
            self.step = CapturedStep(self.step, self.optimizer)
        self.train = streams.place(train, self.device)
        self.valid = streams.place(self.valid, self.device) if self.valid else None
        self.n_batches = -(-len(train) // config.batch_size)
        self.progress = Progress(n_train=len(train))
        self.asked_to_stop = False

    def fit(self) -> None:
        """Train until the last epoch or until --patience is used up, from the run's last checkpoint if there is one.

        Raises:
            InputError: the loss is not finite, or a file cannot be written; the last good checkpoint is kept.
            KeyboardInterrupt: after Ctrl-C, with a checkpoint of that very batch saved.
        """
        if not self.model.training:  # else its parts keep their modes: some may be frozen
            self.objective.train()
        self._restore()
        self.last_drawn = time.monotonic()
        if self._finished() and processes.any_process(self.run.was_killed_while_drawing()):
            self._draw()
        with self._ctrl_c_asks():
            while not self._finished():
                epoch = self.progress.epoch + 1
                line = {"epoch": epoch} | self._train_epoch(epoch)
                processes.average_buffers(self.model)
                require_finite(self.model, self.optimizer, f"at epoch {epoch}")
                if self.progress.batch == self.n_batches:
                    self._end_epoch(line)
                else:
                    self._save_last()
                if processes.any_process(self.asked_to_stop):
                    if self.run.writes:
                        print(f"stopped in epoch {epoch}; --resume goes on from {self.run.dir / LAST}", file=sys.stderr)
                    raise KeyboardInterrupt
        print(f"best epoch {self.progress.best_epoch} of {self.progress.epoch}: {self.run.dir / BEST}", end="")
        print(f"; pictures in {self.run.samples}" if self.draw else "")

    def _restore(self) -> None:
        """Continue from the run's last checkpoint, or start from the weights of --pre-trained if there are any."""
        checkpoint, config, path = self.run.checkpoint, self.config, self.run.dir / LAST
        if checkpoint:
            before, now = checkpoint.n_train, len(self.train)
            require(before == now, f"the run had {before} training examples, now there are {now}: check --data-dir")
            check_fit(checkpoint.state_dict, self.model, f"{path} has other networks", REMEDY)
            self.model.load_state_dict(checkpoint.state_dict)
            tensors = optimizers.TENSORS[config.optimizer]
            optimizers.restore(path, checkpoint.optimizer, self.optimizer, tensors, REMEDY)
            self.progress = msgspec.convert(checkpoint, Progress, from_attributes=True)
            more = ", a larger --epochs adds to them" if config.lr_schedule == "constant" else ""
            done = f": all epochs are done{more}" if self._finished() else ""
            print(f"resuming after epoch {self.progress.epoch}, batch {self.progress.batch}{done}")
        elif config.pre_trained:
            start_from(config.pre_trained, self.model, self.run.experiment, self.run.config)
        if not self._finished():
            held_out = "; valid: the same on held-out examples; *: the best so far" if self.valid else ""
            print(f"bound: nats an example, weights included{held_out}")
        self._check_processes()
        progress = self.progress
        steps = progress.epoch * self.n_batches + progress.batch
        self.schedule = optimizers.schedule(config, self.optimizer, self.n_batches, steps)
        random_states.restore(checkpoint and checkpoint.rng, config.seed, progress.epoch, progress.batch, self.device)

    def _check_processes(self) -> None:
        """Raise InputError if there are too many processes, or if they do not see the same save-dir."""
        world = processes.world_size()
        fewest = min(len(self.train), self.config.batch_size, len(self.valid or self.train))
        remedy = f"start at most {fewest}, or raise --batch-size, --valid or --limit"
        require(world <= fewest, f"{world} processes cannot share {fewest} examples: {remedy}")
        starts = set(processes.gather((self.progress.epoch, self.progress.batch)))
        require(len(starts) == 1, f"the processes see different folders {self.run.dir}: give one that all of them see")

    def _finished(self) -> bool:
        progress, config = self.progress, self.config
        no_patience_left = config.patience is not None and progress.epoch - progress.best_epoch >= config.patience
        return no_patience_left or progress.epoch >= config.epochs

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train to the end of the epoch, or until Ctrl-C; returns the epoch's metrics."""
        progress, config, started = self.progress, self.config, time.monotonic()
        start = seen = progress.batch * config.batch_size  # examples of the epoch
        meter, n_train = Meter(progress.sums, progress.n), len(self.train)
        shown = {"shown": config.log_interval > 0, "desc": f"epoch {epoch}", "unit": " examples", "leave": False}
        with progress_bar(total=n_train, initial=start, **shown) as bar:
            for b, n, examples, index in self._batches(epoch):
                step, annealing_steps = (epoch - 1) * self.n_batches + b, config.annealing_epochs * self.n_batches
                beta = config.beta * annealed(step, annealing_steps)
                lr = self.schedule.get_last_lr()[0]
                bound, norm = self.step(examples, index, n, beta)
                self.schedule.step()
                if bound is not None:
                    meter.add(bound, len(index), norm)
                seen += n
                bar.update(n)
                stopping = processes.any_process(self.asked_to_stop)
                if stopping or (b + 1) % (config.log_interval or n_train) == 0 or seen == n_train:
                    means = meter.means(f"at epoch {epoch}, batch {b + 1} or shortly before")
                    show_means(bar, beta, means)
                if stopping:
                    break
        seconds = time.monotonic() - started
        progress.batch, progress.sums, progress.n = b + 1, meter.sums, meter.n
        progress.seconds += seconds
        line = {"train": means, "beta": beta, "lr": float(lr), "seconds": progress.seconds}
        return line | {"examples_per_second": (seen - start) / seconds}

    def _batches(self, epoch: int) -> Iterator[tuple[int, int, Examples, Tensor]]:
        """The batches of the epoch that are left: number (from 0), size, and this process's part of it.

        A part is examples on the device, and the numbers of its rows among them, (B,).
        """
        first, size = self.progress.batch, self.config.batch_size
        order = random_states.epoch_order(len(self.train), self.config.seed, epoch).to(self.train.device)
        starts = range(first * size, len(order), size)
        parts = streams.feed(self.train, (order[i : i + size][processes.local_rows()] for i in starts))
        for b, (i, (examples, index)) in enumerate(zip(starts, parts, strict=True), start=first):
            yield b, min(size, len(order) - i), examples, index

    def _end_epoch(self, line: dict[str, Any]) -> None:
        """Evaluate if it is due, keep the best model, and bring the save-dir up to date; `line` gets the evaluation."""
        epoch, config = line["epoch"], self.config
        if self.valid and (epoch % config.eval_interval == 0 or epoch >= config.epochs):
            line["valid"] = validation_means(self.objective, self.valid, config.seed, config.beta)
        not_validated = -math.inf if self.valid else float(epoch)  # without validation the last model is the best
        is_best = self.progress.end_epoch(line["valid"]["bound"] if "valid" in line else not_validated)
        if is_best:
            self._save(BEST)
        self.run.log(line)
        self._save_last()
        report_epoch(line, config.epochs, is_best)
        for callback in self.callbacks:
            with self._undisturbed():
                callback(self.run, line)
        self._draw()

    def _save(self, name: str, **more: Any) -> None:  # noqa: ANN401 (what torch.save takes)
        if self.run.writes:
            progress = msgspec.structs.asdict(self.progress)
            save_tensors(
                self.run.dir / name, self.run.about | progress | {"state_dict": self.model.state_dict()} | more
            )

    def _save_last(self) -> None:
        states = processes.gather(random_states.current(self.device))
        self._save(LAST, rng=states, optimizer=self.optimizer.state_dict())

    def _draw(self) -> None:
        """Draw if it is due; loss.png comes last."""
        if self.draw and self.run.writes and (self._finished() or time.monotonic() - self.last_drawn > PICTURES_EVERY):
            with self._undisturbed():
                self.draw(self.run.samples)
            if self.run.metrics:  # none if the user moved a damaged metrics.jsonl away
                training_curves.loss_curves(self.run.dir / CURVES, self.run.metrics)
            self.last_drawn = time.monotonic()

    @contextmanager
    def _ctrl_c_asks(self) -> Iterator[None]:
        """A context in which the first Ctrl-C only asks to stop, so that no step is cut in two."""

        def ask(*_: object) -> None:
            self.asked_to_stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self.run.writes:
                print("\nstopping after this batch (Ctrl-C again: at once)", file=sys.stderr)

        previous = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """A context in evaluation mode with fixed noise; the random draws of the training do not change."""
        noise = random_states.fixed_noise(self.config.seed, self.device)
        with evaluation_mode(self.objective), noise, torch.no_grad():
            yield


def show_means(bar: tqdm, beta: float, means: dict[str, float]) -> None:
    """Show the means so far beside the progress bar; only the bound if there are many terms."""
    shown = means if len(means) <= MAX_TERMS else {"bound": means["bound"]}
    bar.set_postfix({"beta": f"{beta:.2f}"} | {name: f"{value:.1f}" for name, value in shown.items()}, refresh=False)
