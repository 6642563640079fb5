"""The training loop: annealing, model selection, early stopping, exact resumption."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from common import distributed, random_states
from common.checkpoints import BEST, LAST, start_from
from common.data import streams
from common.data.batches import Examples
from common.data.streams import Stream
from common.data.tensor_files import save
from common.errors import Diverged, require
from common.objectives.base import Objective
from reports import training_curves
from training import optimizers, resuming
from training.options import RunConfig
from training.progress import DIVERGED, CtrlC, Meter, Progress, progress_bar, report_epoch, show_means
from training.resuming import Last
from training.runs import CURVES, Callback, Run
from training.steps import CapturedStep, Step

PICTURES_EVERY = 60.0  # seconds between pictures during training
EVALUATION_BATCH = 500  # examples: without gradients there is room for more than training's batch


def annealed(step: int, annealing_steps: int) -> float:
    """The share of --beta at a step (from 0), which rises linearly with the steps to 1 at the last annealing step."""
    return min(1.0, (step + 1) / annealing_steps) if annealing_steps else 1.0


def evaluate(objective: Objective, examples: Examples | Stream, seed: int, beta: float) -> dict[str, float]:
    """Means of the bound and its terms, in nats, always with the same latent noise."""
    meter = Meter()
    objective.eval()
    with random_states.fixed_noise(seed + distributed.rank(), _device_of(objective)), torch.no_grad():
        rows = torch.arange(len(examples), device=examples.device)[distributed.local_rows()]
        for loaded, index in streams.feed(examples, rows.split(EVALUATION_BATCH)):
            meter.add(objective.bound(loaded[index], beta), len(index))
    return meter.means("on the validation examples")


@dataclass(eq=False, repr=False)
class Trainer:
    """A training run, which maximises the objective's bound.

    The best model has the highest bound on the validation examples (with --beta and the weights as trained); without
    validation examples it is the last one. The save-dir is brought up to date after every epoch.

    Args:
        train, valid: the splits; moved to the model's device where they fit, streamed to it otherwise.
        config: needs epochs, annealing_epochs, batch_size and lr beside the common options.
        draw: writes sample pictures into a folder, at most once a minute and at the end; None for no pictures.
        callbacks: called after each epoch by all processes, with the checkpoint saved and the model in evaluation mode.
            Their random draws do not change those of the training.
    """

    model: nn.Module
    objective: Objective
    train: Examples | Stream
    valid: Examples | Stream | None
    config: RunConfig
    run: Run
    draw: Callable[[Path], None] | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        config, train = self.config, self.train
        self.device = _device_of(self.model)
        self.optimizer = optimizers.make(config, self.objective.parameters(), self.device)
        self.step = Step(self.objective, self.optimizer, config.max_grad_norm)
        if self.device.type == "cuda" and self.step.capturable(train):
            self.step = CapturedStep(self.step)
        self.train = streams.place(train, self.device)
        self.valid = streams.place(self.valid, self.device) if self.valid else None
        self.n_batches = -(-len(train) // config.batch_size)
        self.progress = Progress(n_train=len(train))
        self.ctrl_c = CtrlC()

    def fit(self) -> None:
        """Train, from the run's last checkpoint if there is one.

        Raises:
            InputError: the loss is not finite, or a file cannot be written; the last good checkpoint is kept.
            KeyboardInterrupt: after Ctrl-C, with a checkpoint of that very batch saved.
        """
        self._restore()
        self._train()

    def _restore(self) -> None:
        """Continue from the run's last checkpoint, or start from the weights of --pre-trained if there are any."""
        checkpoint, config = self.run.checkpoint, self.config
        if checkpoint:
            self._load(checkpoint)
            more = ", a larger --epochs adds to them" if config.lr_schedule == "constant" else ""
            done = f": all epochs are done{more}" if self._finished() else ""
            print(f"resuming after epoch {self.progress.epoch}, batch {self.progress.batch}{done}")
        elif config.pre_trained:
            start_from(config.pre_trained, self.model, self.run.experiment, self.run.config)
        if config.resume and not checkpoint:
            print(f"{self.run.dir} holds no checkpoint to resume from: a new run starts")
        self._check_processes()
        progress, states = self.progress, checkpoint and checkpoint.rng
        steps = progress.epoch * self.n_batches + progress.batch
        self.schedule = optimizers.schedule(config, self.optimizer, self.n_batches, steps)
        random_states.restore(states, config.seed, progress.epoch, progress.batch, self.device)

    def _train(self) -> None:
        """Train until the last epoch, until --patience is used up, or until Ctrl-C."""
        self.last_drawn = time.monotonic()
        if self.draw and self._finished() and distributed.any_process(self._killed_while_drawing()):
            self._draw()
        with self.ctrl_c:
            while not self._finished():
                epoch = self.progress.epoch + 1
                line = {"epoch": epoch} | self._train_epoch(epoch)
                distributed.average_buffers(self.model)
                self._require_finite(f"at epoch {epoch}")
                if self.progress.batch * self.config.batch_size < len(self.train):
                    self._save_last()
                    self._stop(epoch)
                self._end_epoch(line)
                if distributed.any_process(self.ctrl_c.asked):
                    self._stop(epoch)
        print(f"best epoch {self.progress.best_epoch} of {self.progress.epoch}: {self.run.dir / BEST}", end="")
        print(f"; pictures in {self.run.samples}" if self.draw else "")

    def _load(self, last: Last) -> None:
        before, now, path = last.n_train, len(self.train), self.run.dir / LAST
        require(before == now, f"the run had {before} training examples, now there are {now}: check --data-dir")
        resuming.restore(path, last, self.model, self.optimizer, optimizers.TENSORS[self.config.optimizer])
        self.progress = Progress(**{key.name: getattr(last, key.name) for key in fields(Progress)})

    def _check_processes(self) -> None:
        """Raise InputError if there are too many processes, or if they do not see the same save-dir."""
        world = distributed.world_size()
        for shared, n, remedy in (
            ("training examples", len(self.train), ""),
            ("validation examples", len(self.valid) if self.valid else world, ", or raise --valid"),
            ("examples of a batch", self.config.batch_size, ", or raise --batch-size"),
        ):
            require(world <= n, f"{world} processes cannot share {n} {shared}: start fewer{remedy}")
        starts = set(distributed.gather((self.progress.epoch, self.progress.batch)))
        seen = f"{self.run.dir} must be a folder that all of them see"
        require(len(starts) == 1, f"the processes would continue from different batches: {seen}")

    def _finished(self) -> bool:
        progress, config = self.progress, self.config
        no_patience_left = config.patience is not None and progress.epoch - progress.best_epoch >= config.patience
        return no_patience_left or progress.epoch >= config.epochs

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train to the end of the epoch, or until Ctrl-C; returns the epoch's metrics."""
        progress, started = self.progress, time.monotonic()
        start = seen = progress.batch * self.config.batch_size  # examples of the epoch
        meter = Meter(progress.sums, progress.n)
        self.objective.train()
        with progress_bar(epoch, start, len(self.train)) as bar:
            for b, n, examples, index in self._batches(epoch):
                beta = self._beta(epoch, b)
                lr = self.schedule.get_last_lr()[0]
                bound, norm = self.step(examples, index, n, beta)
                self.schedule.step()
                if bound is not None:
                    meter.add(bound, len(index), norm)
                seen += n
                bar.update(n)
                stopping = distributed.any_process(self.ctrl_c.asked)
                if stopping or (b + 1) % self.config.log_interval == 0 or seen == len(self.train):
                    means = meter.means(f"at epoch {epoch}, batch {b + 1} or shortly before")
                    show_means(bar, beta, means)
                if stopping:
                    break
        seconds = time.monotonic() - started
        progress.batch, progress.sums, progress.n = b + 1, meter.sums, meter.n
        progress.seconds += seconds
        return {
            "train": means,
            "beta": beta,
            "lr": float(lr),
            "seconds": progress.seconds,
            "examples_per_second": (seen - start) / seconds,
        }

    def _batches(self, epoch: int) -> Iterator[tuple[int, int, Examples, Tensor]]:
        """The batches of the epoch that are left: number (from 0), size, and this process's part of it.

        A part is examples on the device, and the numbers of its rows among them, (B,).
        """
        first, size = self.progress.batch, self.config.batch_size
        order = random_states.epoch_order(len(self.train), self.config.seed, epoch).to(self.train.device)
        starts = range(first * size, len(order), size)
        parts = streams.feed(self.train, (order[i : i + size][distributed.local_rows()] for i in starts))
        for b, (i, (examples, index)) in enumerate(zip(starts, parts, strict=True), start=first):
            yield b, min(size, len(order) - i), examples, index

    def _beta(self, epoch: int, b: int) -> float:
        step, n_annealing = (epoch - 1) * self.n_batches + b, self.config.annealing_epochs * self.n_batches
        return self.config.beta * annealed(step, n_annealing)

    def _end_epoch(self, line: dict[str, Any]) -> None:
        """Evaluate if it is due, keep the best model, and bring the save-dir up to date.

        Args:
            line: the epoch's metrics in training; gets those in validation.
        """
        epoch, config = line["epoch"], self.config
        if self.valid and (epoch % config.eval_interval == 0 or epoch >= config.epochs):
            line["valid"] = evaluate(self.objective, self.valid, config.seed, config.beta)
        self.progress.end_epoch()
        not_validated = -math.inf if self.valid else float(epoch)  # without validation the last model is the best
        is_best = self.progress.take_score(line["valid"]["bound"] if "valid" in line else not_validated)
        if is_best and self.run.writes:
            save(self.run.dir / BEST, self._checkpoint())
        self.run.log(line)
        self._save_last()
        report_epoch(line, self.config.epochs, is_best)
        for callback in self.callbacks:
            with self._undisturbed():
                callback(self.run, line)
        if self.draw:
            self._draw()

    def _checkpoint(self) -> dict[str, Any]:
        return self.run.about | vars(self.progress) | {"state_dict": self.model.state_dict()}

    def _save_last(self) -> None:
        states = distributed.gather(random_states.current(self.device))
        if self.run.writes:
            resumable = {"rng": states, "optimizer": self.optimizer.state_dict()}
            save(self.run.dir / LAST, self._checkpoint() | resumable)

    def _stop(self, epoch: int) -> NoReturn:
        if self.run.writes:
            print(f"stopped in epoch {epoch}; --resume continues from {self.run.dir / LAST}", file=sys.stderr)
        raise KeyboardInterrupt

    def _draw(self) -> None:
        """Draw if it is due; loss.png comes last."""
        if self.run.writes and (self._finished() or time.monotonic() - self.last_drawn > PICTURES_EVERY):
            with self._undisturbed():
                self.draw(self.run.samples)
            if self.run.metrics:  # none if the user moved a damaged metrics.jsonl away
                training_curves.loss_curves(self.run.dir / CURVES, self.run.metrics)
            self.last_drawn = time.monotonic()

    def _killed_while_drawing(self) -> bool:
        """Whether the pictures are older than the last checkpoint of a finished run."""
        curves, last = self.run.dir / CURVES, self.run.dir / LAST
        return self.run.writes and (not curves.exists() or curves.stat().st_mtime < last.stat().st_mtime)

    def _require_finite(self, when: str) -> None:
        """Raise InputError for broken weights, buffers or moments, so that no checkpoint holds them."""
        moments = {
            f"the optimiser's {name} of parameter {i}": x
            for i, state in enumerate(self.optimizer.state.values())
            for name, x in state.items()
        }
        broken = [name for name, x in (self.model.state_dict() | moments).items() if not x.isfinite().all()]
        if broken:
            raise Diverged(f"weights are not finite {when}: {', '.join(broken[:3])}; {DIVERGED}")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """A context in evaluation mode with fixed noise; the random draws of the training do not change."""
        self.objective.eval()
        with random_states.fixed_noise(self.config.seed, self.device), torch.no_grad():
            yield


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
