"""A network that predicts the attributes of photographs, to judge generated faces."""

from pathlib import Path

from celeba.attributes import ATTRIBUTES
from celeba.model import image_encoder
from common.data import Examples
from reports.classifiers import cached_network, fingerprint, fit

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

STEPS = 2000  # of training
FINGERPRINTED = 1000  # images whose checksum identifies a set
BATCH_SIZE = 100


def classifier(train: Examples, attributes: Tensor, cache: Path | None) -> nn.Module:
    """Return a network: images (N, 3, 64, 64) in [0, 1] -> a tuple of the logits of the attributes, (N, 18).

    See `reports.classifiers.cached_network`. Training mirrors images at random and lets the learning rate
    fall to zero.

    Args:
        train: N examples, with their image.
        attributes: (N, 18), 0 or 1.
        cache: file of the trained network; None keeps nothing.

    Raises:
        InputError: the cache is damaged, or was made from something else.
    """

    def train_network(network: nn.Module) -> None:
        def loss(rows: Tensor) -> Tensor:
            image = train[rows.to(train.device)].modalities["image"]
            image = image.flip(-1) if torch.rand(()) < 0.5 else image
            return binary_cross_entropy_with_logits(network(image)[0], attributes[rows].to(image))

        fit(network, loss, len(train), STEPS, "classifier of attributes", batch_size=BATCH_SIZE, weight_decay=1e-4)

    shown = train.take(slice(FINGERPRINTED))[:].modalities["image"]  # of images in a file, not all are read
    made_from = {"n": len(train), "images": fingerprint(shown), "attributes": fingerprint(attributes), "steps": STEPS}
    return cached_network(lambda: image_encoder(3, (len(ATTRIBUTES),)), train_network, cache, made_from, train.device)


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Predict the attributes (N, 18) bool of images (N, 3, 64, 64) in [0, 1]."""
    return network(images)[0] > 0
