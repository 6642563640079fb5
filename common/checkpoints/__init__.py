"""Trained models on disk: those of our files and of the original authors'."""

from common.checkpoints.authors_files import Size
from common.checkpoints.experiment_modules import EXPERIMENTS
from common.checkpoints.saved_models import (
    BEST,
    FORMAT,
    LAST,
    OPTIONS,
    PUBLISHED,
    ModelCheckpoint,
    Name,
    NetworkOptions,
    check_fit,
    experiment_of,
    load,
    load_config,
    load_model,
    start_from,
)

__all__ = [
    "BEST",
    "EXPERIMENTS",
    "FORMAT",
    "LAST",
    "OPTIONS",
    "PUBLISHED",
    "ModelCheckpoint",
    "Name",
    "NetworkOptions",
    "Size",
    "check_fit",
    "experiment_of",
    "load",
    "load_config",
    "load_model",
    "start_from",
]
