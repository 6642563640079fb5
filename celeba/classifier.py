"""A network that predicts the attributes of photographs, to judge generated faces."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from celeba.attributes import ATTRIBUTES
from celeba.model import image_encoder
from common.checkpoints import load, save
from common.data import Examples

STEPS = 2000  # of training
BATCH_SIZE = 100
CLASSIFIER = "celeba_classifier.pth.tar"


def classifier(train: Examples, cache: Path | None) -> nn.Module:
    """Return a network: images (N, 3, 64, 64) in [0, 1] -> a tuple of the logits of the attributes, (N, 18).

    It is read from the cache, or trained with a fixed seed and saved there. Training mirrors images at random and lets
    the learning rate fall to zero.

    Args:
        train: image and attrs (N, 18), 0 or 1.
        cache: file of the trained network; replaced if it was trained on other examples. None keeps nothing.

    Raises:
        InputError: the cache is damaged or cannot be written.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = image_encoder(3, (len(ATTRIBUTES),)).to(train.device)
        attributes = train.modalities["attrs"].cpu().numpy()
        training_set = {"n": len(train), "attrs": hashlib.md5(attributes.tobytes()).hexdigest()}
        cached = load(cache) if cache and cache.exists() else {}
        if cached.get("of") == training_set:
            network.load_state_dict(cached["state_dict"])
            return network.eval()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in tqdm(range(STEPS), desc="classifier of attributes", unit=" steps", disable=None):
            batch = train[torch.randint(len(train), (BATCH_SIZE,)).to(train.device)].modalities
            image = batch["image"].flip(-1) if torch.rand(()) < 0.5 else batch["image"]
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(network(image)[0], batch["attrs"]).backward()
            optimizer.step()
            schedule.step()
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        save(cache, {"of": training_set, "state_dict": {key: x.cpu() for key, x in network.state_dict().items()}})
    return network.eval()


@torch.no_grad()
def tell(network: nn.Module, images: Tensor) -> Tensor:
    """Predict the attributes (N, 18) bool of images (N, 3, 64, 64) in [0, 1]."""
    return network(images)[0] > 0
