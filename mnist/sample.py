"""Sample a model of MNIST: from the prior, given an image, given a label, given both.

    python sample.py trained_models                                64 images and labels from the prior
    python sample.py trained_models --mixture 10 --data-dir data   from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-text 5 --data-dir data           given the label 5
    python sample.py trained_models --condition-on-text 5 --sampler posterior       from q(z|text), without data
    python sample.py trained_models --condition-on-image 5         given a random test image of a 5 (or an image file)
    python sample.py trained_models --reconstruct                  test images and their reconstructions

Writes prior.png, mixture_10.png, given_text_5.png, given_image_5.png, given_image_5_text_5.png or reconstructions.png,
named by what was asked: the decoded means with their predicted labels beneath; and a .txt of the same name, these
labels.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from common.checkpoints import load_config
from common.data import Examples
from common.data.image_caches import in_mode, open_picture
from common.errors import require
from common.models import MultimodalVAE
from mnist.aggregate_posterior import from_aggregate_posterior
from mnist.data import MNIST, Dataset, load_as_trained
from reports import options, plots, sampling
from reports.sampling import Given, Shown, errors_begin_with
from training import run_from_command_line

import numpy as np
import torch
from torch import Tensor


@dataclass
class Config(options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_image", "condition_on_text", "reconstruct")

    n_samples: int = 64
    """number of pictures"""
    condition_on_image: str | None = None
    """path of an image, bright on black; or a class, as for --condition-on-text, for a random test image of it"""
    condition_on_text: str | None = None
    """a class, by its number or name"""
    sampler: Literal["posterior", "aggregate"] | None = None
    """what z is drawn from, given a text alone. posterior: q(z|text);
    aggregate: the mean of q(z|image, text) over the training images that have the text.
    None: aggregate for labels, posterior for MultiMNIST's strings and for a CVAE"""
    reconstruct: bool = False
    """reconstruct the first test images instead"""


def main(config: Config, dataset: Dataset = MNIST) -> None:
    """Save a picture and its texts, and print their paths.

    Raises:
        InputError: the options exclude each other, do not go with the model, or name no text or image.
    """
    config.check()
    conditions = {"image": config.condition_on_image, "text": config.condition_on_text}
    asked = [name for name, value in conditions.items() if value is not None]
    require(not config.reconstruct or not asked, "--reconstruct takes no condition: leave one of them out")
    require(
        not config.sampler or asked == ["text"],
        f"--sampler {config.sampler} needs --condition-on-text, and nothing else given",
    )
    model = config.trained_model(dataset.name)
    for name in asked:
        require(name in model.modalities, f"this model has no {name}: leave out --condition-on-{name}")
    require(
        config.reconstruct or "text" in (*asked, *model.modelled) or model.modalities == ("image",),
        "this model has p(image|text) alone: give it --condition-on-text",
    )
    torch.manual_seed(config.seed)
    given, shown, n = given_by(config, dataset), shown_by(dataset), config.n_samples
    load = partial(load_as_trained, config=config, dataset=dataset)
    if config.reconstruct:
        path = config.samples_dir / "reconstructions.png"
        values = sampling.reconstructions(path, model, load("test").take(slice(n)), shown, "text")
    else:
        path, z, default = config.path(given.names), None, default_sampler(model, dataset)
        if config.sampler not in (None, default):
            path = path.with_stem(f"{path.stem}_{config.sampler}")
        if asked == ["text"] and (config.sampler or default) == "aggregate":
            train = load("train").only(model.modalities)
            z = from_aggregate_posterior(model, train, given.inputs["text"].repeat_interleave(n, dim=0))
            given = given._replace(title=f"{given.title}, aggregate posterior")
        latents = config.latents(model, partial(load, "train"))
        values = sampling.samples(path, model, n, shown, given=given, latents=latents, z=z)
    print(path)
    if "text" in model.modelled:
        print(sampling.write_lines(path.with_suffix(".txt"), dataset.names(values["text"])))


def default_sampler(model: MultimodalVAE, dataset: Dataset) -> str:
    """What z is drawn from, given a text alone: for a CVAE q(z|text), which is its prior."""
    return "posterior" if model.modality["image"].given else dataset.sampler


def shown_by(dataset: Dataset) -> Shown:
    """Return how pictures show values: images, with their texts as captions."""
    return Shown(("image",), lambda values: plots.visible(dataset.names(values["text"])) if "text" in values else [])


def given_by(config: Config, dataset: Dataset) -> Given:
    """Return what --condition-on-text and --condition-on-image give the model."""
    inputs, names, titles, image = {}, {}, [], None
    if config.condition_on_image is not None:
        image, names["image"] = given_image(config, dataset)
        inputs["image"] = image
    if config.condition_on_text is not None:
        with errors_begin_with("--condition-on-text: "):
            inputs["text"] = dataset.parse(config.condition_on_text)
        (names["text"],) = dataset.names(inputs["text"])
        titles.append(f"the text {plots.visible([names['text']])[0]}")
    if image is not None:
        titles.append("the image at the left")
    return Given(inputs, names, " and ".join(titles), image)


def given_image(config: Config, dataset: Dataset) -> tuple[Tensor, str]:
    """Return the image that --condition-on-image names, a file or a random test image of a text.

    A model of binary images gets test images as they were in training, and files with pixels drawn anew.

    Returns:
        (1, 1, H, W) in [0, 1], and the name of the file or the text.
    """
    value = config.condition_on_image
    if os.path.isfile(value):  # False too where a text is too long for a file's name
        with open_picture(Path(value), "give another", f"--condition-on-image {value}") as file:
            image = in_mode(file, "L").resize((dataset.size, dataset.size))
        image = torch.from_numpy(np.asarray(image) / 255).float()[None, None]
        binary = load_config(config.model, dataset.name).get("binary")
        return torch.bernoulli(image) if binary else image, Path(value).name
    with errors_begin_with(f"--condition-on-image {value}: there is no such file, and "):
        text = dataset.parse(value)
    examples = load_as_trained("test", config, dataset)
    rows = (examples.modalities["text"] == text).view(len(examples), -1).all(dim=1).nonzero().squeeze(1)
    more = "raise --limit" if config.limit else "ask for another"
    require(len(rows) > 0, f"there is no {value} among the {len(examples)} test images: {more}")
    return examples[rows[torch.randint(len(rows), (1,))]].modalities["image"], dataset.names(text)[0]


def drawn_by(dataset: Dataset) -> Callable[..., None]:
    """Return the function that saves the pictures of a training run (`draw` of `training.Experiment`).

    They are samples from the prior, reconstructions, and 12 samples for each text in `Dataset.shown`.
    """

    @torch.no_grad()
    def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
        shown, examples = shown_by(dataset), (valid or train).only(model.modalities)
        if not model.modality["image"].given:
            sampling.samples(folder / "prior.png", model, 64, shown)
        sampling.reconstructions(folder / "reconstructions.png", model, examples.take(slice(32)), shown, "text")
        if "text" in model.modalities:
            text = torch.cat([dataset.parse(text) for text in dataset.shown]).to(model.device)
            title = "samples given the text"
            if default_sampler(model, dataset) == "aggregate":
                title = f"{title}, aggregate posterior"
                text = text[torch.isin(text, examples.modalities["text"].to(text))]
                z = from_aggregate_posterior(model, examples, text.repeat(12)).unflatten(0, (12, -1))  # (12, T, D)
            else:
                z = model.posterior({"text": text}).sample((12,))
            images = model.decode(z, ["image"], {"text": text})["image"].mean.transpose(0, 1)  # (T, 12, 1, H, W)
            names = plots.visible(dataset.names(text))
            plots.image_grid(folder / "conditional.png", images, names, title=title)

    return draw


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
