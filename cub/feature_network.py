"""ResNet-101 (He et al. 2016): 2048 features per image, and training on the classes of birds."""

import hashlib
import http.client
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.checkpoints import check_fit
from common.errors import InputError, brief, require
from common.execution import random_states
from common.io import DAMAGE, load_tensors, save_tensors
from common.progress import progress_bar
from training import optimizers
from training.optimizers import Count, OptimizerState

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

N_FEATURES = 2048
IMAGENET = "https://download.pytorch.org/models/resnet101-63fe2227.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of each channel in ImageNet
EXTRACTED_AT_ONCE = 64
SMALLEST, WIDEST = 0.25, 4 / 3  # of a training crop: smallest share of the image's area, largest aspect ratio
HELD_OUT_EVERY = 10  # images in their order, so that every class is represented
WARM_UP, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.05, 0.9, 5e-4, 0.1
SAVED_EVERY = 60.0  # seconds, checked after each epoch


class Recipe(NamedTuple):
    """Settings of a network's training.

    size: edge of the held-out images in pixels, the same as when features are extracted.
    train_size: edge of the random training crops in pixels.
    epochs: passes over the training images.
    batch_size: images per step.
    lr: SGD's highest learning rate: it rises linearly in a warm-up, then falls to zero as a cosine.
    seed: seed of all random draws.
    """

    size: int
    train_size: int
    epochs: int
    batch_size: int
    lr: float
    seed: int


def resnet101(n_classes: int | None = None) -> nn.Module:
    """torchvision's ResNet-101 with random weights: images -> logits (N, n_classes), or features (N, 2048) for None."""
    from common.data.torchvision_import import models  # here and below: it takes two seconds, and few scripts need it

    network = models.resnet101(num_classes=n_classes or 1, zero_init_residual=True)
    if n_classes is None:
        network.fc = nn.Identity()
    return network


def extractor(state_dict: Mapping[str, Tensor], source: str) -> nn.Module:
    """ResNet-101 with the given parameters but without its classifier: normalised images -> features (N, 2048).

    Args:
        source: where the parameters come from, for error messages.

    Raises:
        InputError: parameters are missing, unknown, of other shapes or not finite.
    """
    with torch.device("meta"):  # no random initial values, since all are replaced
        network = resnet101()
    try:
        network.load_state_dict({k: x for k, x in state_dict.items() if not str(k).startswith("fc.")}, assign=True)
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"{source} does not fit ResNet-101: {' '.join(str(error).split())[:300]}: give other weights"
        ) from error
    broken = [name for name, x in network.state_dict().items() if not x.isfinite().all()]
    require(not broken, f"{source} holds values that are not finite, in {', '.join(broken[:3])}: give other weights")
    return network.float().to(memory_format=torch.channels_last).eval()


def imagenet() -> dict[str, Tensor]:
    """torchvision's ImageNet weights (IMAGENET1K_V1, as in the MMVAE authors' code), which torch.hub downloads.

    Raises:
        InputError: the download failed, or its file is damaged; the message names the file to download by hand.
    """
    try:
        return torch.hub.load_state_dict_from_url(IMAGENET, map_location="cpu", check_hash=True, weights_only=True)
    except (*DAMAGE, http.client.HTTPException) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET.rsplit("/", 1)[1]
        remedy = f"download it by hand to {file}, or give --weights PATH, or train a network with --weights train"
        raise InputError(f"{IMAGENET} could not be loaded ({brief(error)}): {remedy}") from error


def fingerprint(network: nn.Module) -> str:
    """md5 of a network's parameters and batch-norm statistics, in hexadecimal."""
    digest = hashlib.md5()
    for x in network.state_dict().values():
        digest.update(x.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def normalised(images: Tensor) -> Tensor:
    """Standardise images (N, 3, H, W) in [0, 1] by ImageNet's mean and standard deviation of each channel."""
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in (MEAN, STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def features_of(network: nn.Module, images: Tensor, size: int) -> Tensor:
    """A network's outputs for images, after torchvision's Resize(size) and CenterCrop(size).

    Args:
        network: in evaluation mode, on any device.
        images: (N, 3, H, W) uint8, or float in [0, 1].

    Returns:
        (N, 2048) float32 for an `extractor`, on the network's device.
    """
    from common.data.torchvision_import import transforms

    framed = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    device = next(network.parameters()).device
    batches = (x.to(device) / 255 if x.dtype == torch.uint8 else x.to(device) for x in images.split(EXTRACTED_AT_ONCE))
    return torch.cat([network(normalised(framed(x))) for x in batches])


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random crops of images, mirrored half of the time: (N, 3, H, W) uint8 -> (N, 3, size, size), `normalised`.

    The same as torchvision's RandomResizedCrop and RandomHorizontalFlip, for the whole batch at once.
    """
    area, ratio, x, y, mirror = torch.rand(5, len(images), generator=generator).to(images.device)
    area, ratio = SMALLEST + (1 - SMALLEST) * area, WIDEST ** (2 * ratio - 1)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    zero = torch.zeros_like(x)
    across = torch.stack([width * (1 - 2 * (mirror < 0.5).float()), zero, (1 - width) * (2 * x - 1)], dim=1)
    down = torch.stack([zero, height, (1 - height) * (2 * y - 1)], dim=1)
    grid = affine_grid(torch.stack([across, down], dim=1), [len(images), 3, size, size], align_corners=False)
    return normalised(grid_sample(images / 255, grid, padding_mode="border", align_corners=False))


class Training(msgspec.Struct):
    """A training that goes on later."""

    about: dict[str, Any]
    epoch: Count
    accuracy: float
    state_dict: dict[str, Tensor]
    optimizer: OptimizerState


def train(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    device: torch.device,
    bf16: bool,
    trained_on: Mapping[str, Any],
    path: Path,
) -> tuple[dict[str, Tensor], float]:
    """Train a ResNet-101 to classify images; every tenth is held out.

    The state of the training is saved to `path` now and then, and the training resumes from there.

    Args:
        images: (N, 3, L, L) uint8, at least as large as recipe.size.
        labels: (N,) int64.
        bf16: whether to train in bfloat16 (autocast).
        trained_on: description of the images; a training resumes only if it and the recipe are the same.
        path: file of the saved training.

    Returns:
        the parameters, and the accuracy on the held-out images.

    Raises:
        InputError: the file belongs to another training run, or the loss is not finite.
    """
    with random_states.fixed_noise(recipe.seed, device):
        network = resnet101(int(labels.max()) + 1).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True
    )
    about, done, accuracy = {**recipe._asdict(), **trained_on}, 0, math.nan
    if path.exists():
        remedy = "delete it, or give another --cache-dir"
        kept = load_tensors(path, Training, remedy, remedy)
        require(kept.about == about, f"{path} belongs to another training run: {remedy}")
        check_fit(kept.state_dict, network, f"{path} holds another network", remedy)
        network.load_state_dict(kept.state_dict)
        optimizers.restore(path, kept.optimizer, optimizer, {"momentum_buffer"}, remedy)
        done, accuracy = kept.epoch, kept.accuracy
        print(f"resuming after epoch {done}")
    held_out = torch.arange(len(labels)) % HELD_OUT_EVERY == 0
    saved = time.monotonic()
    for epoch in range(done, recipe.epochs):
        loss, rate = _train_epoch(network, optimizer, (images, labels, ~held_out), recipe, epoch, bf16)
        accuracy = _accuracy(network.eval(), images[held_out], labels[held_out], recipe.size)
        print(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {loss:.3f}  held out {accuracy:.1%} right  {rate:.1f} images/s",
            flush=True,
        )
        if time.monotonic() - saved > SAVED_EVERY:
            state = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
            save_tensors(path, {"about": about, "epoch": epoch + 1, "accuracy": accuracy, **state})
            saved = time.monotonic()
    return {name: x.cpu() for name, x in network.state_dict().items()}, accuracy


def _train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor, Tensor],
    recipe: Recipe,
    epoch: int,
    bf16: bool,
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and the number of images per second.

    Args:
        data: images (N, 3, L, L), labels (N,), and whether to train on each (N,) bool.
        epoch: number of this epoch, from 0.

    Raises:
        InputError: the loss is not finite.
    """
    images, labels, used = data
    device = next(network.parameters()).device
    rows = used.nonzero().squeeze(1)
    batch_size = min(recipe.batch_size, len(rows))
    n_batches = len(rows) // batch_size  # the remaining images differ from epoch to epoch, since the order does
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = rows[torch.randperm(len(rows), generator=generator)][: n_batches * batch_size].view(n_batches, -1)
    network.train()
    losses, started = [], time.monotonic()
    for b, index in enumerate(progress_bar(order, desc=f"epoch {epoch + 1}", unit=" batches", leave=False)):
        progress = (epoch + (b + 1) / n_batches) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(progress / WARM_UP, (1 + math.cos(math.pi * progress)) / 2)
        x = random_crops(images[index].to(device), recipe.train_size, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = cross_entropy(network(x), labels[index].to(device), label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item()
    require(math.isfinite(mean), f"the loss is not finite in epoch {epoch + 1}: try a smaller --lr")
    return mean, order.numel() / (time.monotonic() - started)


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    """Share of images (N, 3, L, L) that a classifier gives its label (N,)."""
    scores = features_of(network, images, size)  # (N, classes), since this network has its classifier
    return (scores.argmax(dim=1).cpu() == labels).float().mean().item()
