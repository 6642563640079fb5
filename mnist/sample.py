"""Sample an MVAE trained on MNIST: from the prior, given an image, given a label, given both.

    python sample.py trained_models                              64 images and labels from the prior
    python sample.py trained_models --condition-on-text 5        given the label 5
    python sample.py trained_models --condition-on-image 5       given a random test image of a 5 (or an image file)
    python sample.py trained_models --reconstruct                test images and their reconstructions

Writes sample_image.png, the decoded means with their predicted labels beneath, and sample_text.txt, these labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import devices, plots, runs
from common.checkpoints import load_model, write_atomically
from common.data import Batch, Examples
from common.errors import InputError, require
from common.models import MultimodalVAE
from mnist.data import CLASSES, load

COLUMNS = 8


@dataclass
class Config(runs.ModelConfig):
    n_samples: int = 64
    """pictures to make"""
    condition_on_image: str | None = None
    """a class: a random test image of it; or the path of an image, bright strokes on black"""
    condition_on_text: int | None = None
    """a class, 0 to 9"""
    reconstruct: bool = False
    """reconstruct the first test images instead"""
    out_dir: Path | None = None
    """where to write; default: samples/ beside the model"""


def main(config: Config) -> None:
    config.check()
    given = (config.condition_on_image, config.condition_on_text)
    require(not config.reconstruct or given == (None, None), "--reconstruct takes no condition: leave one of them out")
    model = load_model(config.model, "mnist").to(devices.select(config.cuda))
    torch.manual_seed(config.seed)
    inputs, title = {}, []
    if config.condition_on_text is not None:
        label = config.condition_on_text
        require(0 <= label < len(CLASSES), f"--condition-on-text must be 0 to 9, it is {label}")
        inputs["text"] = torch.tensor([label])
        title.append(f"the label {label}")
    if config.condition_on_image is not None:
        inputs["image"] = _given_image(config)
        title.append("the image at the left")
    folder = config.out_dir or (config.model if config.model.is_dir() else config.model.parent) / "samples"
    picture = folder / "sample_image.png"
    with torch.no_grad():
        if config.reconstruct:
            examples = load("test", config.data_dir, config.demo, limit=config.limit)
            labels = reconstructions(model, examples.take(slice(config.n_samples)), picture)
        else:
            labels = samples(model, inputs, config.n_samples, picture, " and ".join(title))
    write_atomically(folder / "sample_text.txt", "".join(label + "\n" for label in labels).encode())
    print(f"{picture}\n{folder / 'sample_text.txt'}")


def samples(model: MultimodalVAE, inputs: dict[str, Tensor], n: int, path: Path, given: str = "") -> list[str]:
    """Decode n draws of q(z|inputs), or of the prior; save them beside the given image; return their labels."""
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in inputs.items()}
    z = model.posterior(inputs).sample((n,)).squeeze(1) if inputs else model.prior().sample((n,))  # (n, D)
    decoded = model.likelihood.point(model.decode(z))
    labels = _names(decoded["text"])
    images, captions = plots.in_rows(decoded["image"], labels, COLUMNS)
    if "image" in inputs:
        first = torch.full_like(images[:, 0], torch.nan)
        first[0] = inputs["image"][0]
        images, captions = plots.beside(first, images), [["", "", *row] for row in captions]
        captions[0][0] = "given"
    title = f"samples given {given}" if given else "samples from the prior"
    plots.image_grid(path, images, captions=captions, title=title)
    return labels


def reconstructions(model: MultimodalVAE, examples: Examples, path: Path) -> list[str]:
    """Save images above their reconstructions from the image alone; return the predicted labels."""
    given = examples.to(next(model.parameters()).device)[:].modalities
    decoded = model.reconstruct({"image": given["image"]})
    rows = [plots.in_rows(x["image"], _names(x["text"]), COLUMNS) for x in (given, decoded)]
    images = torch.stack([images for images, _ in rows], dim=1).flatten(0, 1)  # (2 R, 8, 1, 28, 28)
    captions = [row for pair in zip(*(captions for _, captions in rows), strict=True) for row in pair]
    labels = ["given", "decoded"] * (len(images) // 2)
    plots.image_grid(path, images, labels, captions, "reconstructions from the image")
    return _names(decoded["text"])


def draw(model: MultimodalVAE, folder: Path, examples: Examples) -> None:
    """The pictures that training leaves: samples of the prior, of each label, reconstructions."""
    samples(model, {}, 64, folder / "prior.png")
    reconstructions(model, examples.take(slice(32)), folder / "reconstructions.png")
    conditional(model, folder / "conditional.png")


def conditional(model: MultimodalVAE, path: Path) -> None:
    """Save a row of samples for each label."""
    labels = torch.arange(len(CLASSES), device=next(model.parameters()).device)
    z = model.posterior({"text": labels}).sample((12,)).transpose(0, 1)  # (10, 12, D)
    plots.image_grid(path, model.decode(z, ["image"])["image"].mean, CLASSES, title="samples given the label")


def _names(labels: Tensor) -> list[str]:
    return [CLASSES[label] for label in labels.tolist()]


def _given_image(config: Config) -> Tensor:
    """The image (1, 1, 28, 28) that --condition-on-image names."""
    name = config.condition_on_image
    if name.lstrip("-").isdigit():
        require(name in CLASSES, f"--condition-on-image must be a class from 0 to 9 or a file, it is {name}")
        examples = load("test", config.data_dir, config.demo, limit=config.limit)
        rows = (examples.modalities["text"] == int(name)).nonzero().squeeze(1)
        require(len(rows) > 0, f"there is no {name} among the {len(examples)} test images: raise --limit")
        batch: Batch = examples[rows[torch.randint(len(rows), (1,))]]
        return batch.modalities["image"]
    try:
        with Image.open(name) as file:
            image = file.convert("L").resize((28, 28))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--condition-on-image {name} is no class and no readable image: {error}") from error
    return torch.from_numpy(np.asarray(image) / 255).float()[None, None]


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
