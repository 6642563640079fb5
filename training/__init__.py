"""Runs: options, the command line, save-dirs, devices, steps and the training loop."""

from training.command_line import run_from_command_line
from training.experiment import Experiment, experiment_in, objective_of, run
from training.loop import Trainer

__all__ = ["Experiment", "Trainer", "experiment_in", "objective_of", "run", "run_from_command_line"]
