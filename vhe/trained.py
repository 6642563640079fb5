"""A trained model of Omniglot, and the characters to test it on."""

from typing import Any

import torch
from torch import Generator, Tensor

from common import devices
from common.checkpoints import load_config, load_model
from common.options import ModelConfig
from vhe.data import Characters, load
from vhe.homoencoder import VHE
from vhe.support_sets import SupportSets


def load_trained(config: ModelConfig) -> tuple[VHE, dict[str, Any]]:
    """The model that the options name, on its device, and the options that it was trained with."""
    model = load_model(config.model, "vhe").to(devices.select(config.cuda))
    return model, load_config(config.model, "vhe")


def load_test(config: ModelConfig, trained: dict[str, Any]) -> Characters:
    """The test characters of a model: those of the alphabets that its training left out."""
    stated = [] if config.demo else trained["test_alphabets"]
    return load("test", config.data_dir, config.demo, False, config.limit, stated)


def codes(model: VHE) -> tuple[str, ...]:
    """The latent variables that images of a character have in common, drawn in one style: all but z."""
    return tuple(name for name in model.latents if name != "z")


def images_of(images: Tensor, labels: Tensor, groups: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """n different ones of the images (N, ...) with each of the labels `groups` (R,), in a random order: (R, n, ...).

    Raises:
        InputError: a label, not only of those, has fewer images.
    """
    rows = (labels[:, None] == groups).int().argmax(dim=0)  # the first image of each
    return SupportSets(images, {"group": labels}, {"group": n}, generator=generator)[rows].inputs["group"]


def device_of(model: VHE) -> torch.device:
    return next(model.parameters()).device
