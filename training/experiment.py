"""An experiment as a value, and the one function that trains it."""

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from common.checkpoints import EXPERIMENTS, to_start_from
from common.data.batches import Examples
from common.data.splits import hold_out, unpair
from common.errors import require
from common.execution import devices, processes
from common.io import locked
from common.model_data import check_present, modelled
from common.models.objectives import make_objective
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Objective
from training import trackers
from training.loop import Trainer
from training.model_options import ObjectiveOptions
from training.options import RunConfig, as_json, taken_up
from training.runs import Callback, Run, check_save_dir

import torch
from torch import nn

Split = Any  # what `load` returns: Examples, or what an experiment makes them from


class Experiment(NamedTuple):
    """What a train.py says about its experiment.

    name: the folder, which checkpoints name.
    load: split ("train", "test"), config -> the data of that split.
    build: config -> the model.
    objective: config, model -> what to maximise.
    draw: model, folder, train, valid -> writes sample pictures into the folder; None for no pictures.
    load_train: config -> the data to train on, and those to select the best model by (None for none). It may complete
        the config with what the data say, such as a vocabulary. By default the last sixth of the training split, or
        --valid examples, are held out.
    examples: config, data, model -> the examples that a step takes batches from; by default the data, without what the
        model has no modality for.
    """

    name: str
    load: Callable[[str, Any], Split]
    build: Callable[[Any], nn.Module]
    objective: Callable[[Any, nn.Module], Objective]
    draw: Callable[[nn.Module, Path, Split, Split | None], None] | None
    load_train: Callable[[Any], tuple[Split, Split | None]] | None = None
    examples: Callable[[Any, Split, nn.Module], Examples] = modelled

    def splits(self, config: RunConfig) -> tuple[Split, Split | None]:
        """The data to train on, and those to select the best model by (None for none).

        Raises:
            InputError: `load` returns no `Examples`, or there are too few; see also `load` and `load_train`.
        """
        if self.load_train:
            return self.load_train(config)
        loaded = self.load("train", config)
        require(
            isinstance(loaded, Examples), f'load("train", config) must return Examples, not {type(loaded).__name__}'
        )
        return hold_out(loaded, config.valid)


def experiment_in(script: ModuleType, config: RunConfig) -> Experiment:
    """The experiment of a folder's train.py, which may depend on its config."""
    make = script.experiment
    return make(config) if inspect.signature(make).parameters else make()


def objective_of(config: ObjectiveOptions, model: MultimodalVAE) -> Objective:
    """The objective that --obj names, by default the first one that exists for the model."""
    return make_objective(config.obj or config.objectives()[0], model, config, config.weights(model))


def run(config: RunConfig, experiment: Experiment, callbacks: Sequence[Callback] = ()) -> Run:
    """Train an experiment's model.

    Args:
        callbacks: called after each epoch (see `Trainer`), beside the trackers of --track.

    Returns:
        the finished run.

    Raises:
        InputError: options, data or a save-dir that cannot be used, the train.py of a copied folder that trains the
            original, or a loss that diverged.
    """
    taken_up(type(config), as_json(config), "the config", "give another value")  # Python checks no types
    config.check()
    _check_folder(experiment.name)
    trackers.check_installed(config.track)
    folder = config.save_dir / config.experiment
    was_locked = (folder / ".lock").exists() and processes.rank() == 0  # and may still be, by another process
    with locked(folder) if was_locked else nullcontext():
        goes_on = check_save_dir(experiment.name, config)
    if config.pre_trained and not goes_on:
        to_start_from(config.pre_trained, experiment.name, as_json(config))
    device = config.select_device()  # before any work on several threads, which keep the settings they start with
    torch.manual_seed(config.seed)
    train, valid = experiment.splits(config)
    selects = valid is not None or config.patience is None
    require(selects, "--patience needs validation examples, and so few examples leave none: raise --limit")
    if valid is None and config.valid != 0 and processes.rank() == 0:
        print("warning: too few examples to hold any out: the last model will count as the best", file=sys.stderr)
    model = devices.prepare(experiment.build(config), device, config.precision)
    objective = experiment.objective(config, model)
    examples = experiment.examples(config, train, model)
    check_present(examples, model)
    if config.paired_fraction < 1:
        examples = unpair(examples, config.paired_fraction, config.seed, objective.unimodal)
    held_out = valid and experiment.examples(config, valid, model)
    draw = experiment.draw and (lambda folder: experiment.draw(model, folder, train, valid))
    with Run(experiment.name, config) as opened:
        callbacks = [*callbacks, *trackers.start(config.track, opened)]
        Trainer(model, objective, examples, held_out, config, opened, draw, callbacks).fit()
    return opened


def _check_folder(name: str) -> None:
    """Raise InputError if the running script is the train.py of a copied folder that still imports the original."""
    script = Path(getattr(sys.modules["__main__"], "__file__", "")).resolve()
    folder = script.parent
    is_copy = (
        EXPERIMENTS.get(name) == f"{name}.model" and script.name == "train.py" and (folder / "__init__.py").exists()
    )
    message = f"{script} trains {name}, not {folder.name}: write {folder.name} for {name} in the files of this folder"
    require(not is_copy or folder.name == name, message)
