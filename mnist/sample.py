"""Sample a model of MNIST: from the prior, given an image, given a label, given both.

    python sample.py trained_models                                64 images and labels from the prior
    python sample.py trained_models --mixture 10 --data-dir data   from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-text 5          given the label 5
    python sample.py trained_models --condition-on-text 5 --sampler aggregate --data-dir data
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

import numpy as np
import torch
from torch import Tensor

from common.checkpoints import load_config, load_model
from common.data import Examples
from common.data.image_caches import open_picture
from common.errors import InputError, require
from common.models import MultimodalVAE
from mnist.aggregate_posterior import AggregatePosterior
from mnist.data import MNIST, Dataset, load_as_trained
from reports import generated, options, plots, sample_files
from training import devices, run_from_command_line

COLUMNS = 8


@dataclass
class Config(options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_image", "condition_on_text", "reconstruct")

    n_samples: int = 64
    """number of pictures"""
    condition_on_image: str | None = None
    """path of an image, bright on black; or a class, as for --condition-on-text, for a random test image of it"""
    condition_on_text: str | None = None
    """a class, by its number or name"""
    sampler: Literal["posterior", "aggregate"] = "posterior"
    """what z is drawn from, given a text. posterior: q(z|text); aggregate: the mean of q(z|image, text) over the
    training images that have the text"""
    reconstruct: bool = False
    """reconstruct the first test images instead"""


def main(config: Config, dataset: Dataset = MNIST) -> None:
    """Save a picture and its texts, and print their paths.

    Raises:
        InputError: the options exclude each other, do not go with the model, or name no text or image.
    """
    config.check()
    conditions = {"image": config.condition_on_image, "text": config.condition_on_text}
    given = [name for name, value in conditions.items() if value is not None]
    require(not config.reconstruct or not given, "--reconstruct takes no condition: leave one of them out")
    aggregate = config.sampler == "aggregate"
    require(not aggregate or given == ["text"], "--sampler aggregate needs --condition-on-text, and nothing else given")
    model = load_model(config.model, dataset.name).to(devices.select(config.cuda))
    for name in given:
        require(name in model.modalities, f"this model has no {name}: leave out --condition-on-{name}")
    require(
        config.reconstruct or "text" in (*given, *model.modelled) or model.modalities == ("image",),
        "this model has p(image|text) alone: give it --condition-on-text",
    )
    torch.manual_seed(config.seed)
    inputs, title, names = _inputs(config, dataset)
    folder = config.samples_dir
    picture = folder / f"{config.sample_name(**names)}.png"
    with torch.no_grad():
        if config.reconstruct:
            picture = folder / "reconstructions.png"
            examples = load_as_trained("test", config, dataset)
            texts = reconstructions(model, examples.take(slice(config.n_samples)), picture, dataset)
        else:
            training = partial(load_as_trained, "train", config, dataset)
            latents = config.latents(model, training)
            z = None if latents is None else model.draw_latents(config.n_samples, latents)
            if aggregate:
                train = training().only(model.modalities)
                labels = inputs["text"].repeat_interleave(config.n_samples, dim=0)
                z, title = AggregatePosterior(model, train, "text").sample(labels), f"{title}, aggregate posterior"
                picture = picture.with_stem(f"{picture.stem}_aggregate")
            texts = samples(model, inputs, config.n_samples, picture, dataset, title, z)
    print(picture)
    if "text" in model.modelled:
        print(sample_files.write_lines(picture.with_suffix(".txt"), texts))


def samples(
    model: MultimodalVAE,
    inputs: dict[str, Tensor],
    n: int,
    path: Path,
    dataset: Dataset,
    given: str = "",
    z: Tensor | None = None,
) -> list[str]:
    """Save n samples given the inputs, or from the prior, and return their texts (n strings).

    Args:
        inputs: image (1, 1, H, W) in [0, 1], text (1, ...), both or none.
        path: the picture to write: a given image at the left, the decoded means with their texts beneath.
        given: what the title says about the inputs.
        z: the latents to decode, (n, D); by default draws of q(z|inputs), or of the prior.
    """
    device = model.device
    inputs = {name: x.to(device).expand(n, *x.shape[1:]) for name, x in inputs.items()}
    latents = z
    if latents is None:
        latents = model.posterior(inputs).sample() if inputs else model.draw_latents(n)  # (n, D)
    decoded = model.likelihood.point(model.decode(latents, given=inputs))
    texts = _texts(decoded, dataset)
    images, captions = plots.in_rows(decoded["image"], _captions(decoded, dataset), COLUMNS)
    if "image" in inputs:
        first = torch.full_like(images[:, 0], torch.nan)
        first[0] = inputs["image"][0]
        images, captions = plots.beside(first, images), [["", "", *row] for row in captions]
        captions[0][0] = "given"
    title = f"samples given {given}" if given else generated.title_of(z)
    plots.image_grid(path, images, captions=captions, title=title)
    return texts


def reconstructions(model: MultimodalVAE, examples: Examples, path: Path, dataset: Dataset) -> list[str]:
    """Save images above their reconstructions, and return the predicted texts (N strings).

    The model gets the images alone; CVAE also gets their texts, without which it has no posterior.
    """
    given = examples.to(model.device)[:].modalities
    from_image_alone = "image" in model.encoder
    names = ("image",) if from_image_alone else model.modalities
    decoded = model.reconstruct({name: given[name] for name in names})
    texts = _texts(decoded, dataset)
    shown = {"given": given, "decoded": decoded}
    rows = {label: (x["image"], _captions(x, dataset)) for label, x in shown.items()}
    images, labels, captions = plots.alternating(rows, COLUMNS)
    title = f"reconstructions from the image{'' if from_image_alone else ' and its text'}"
    plots.image_grid(path, images, labels, captions, title)
    return texts


def drawn_by(dataset: Dataset) -> Callable[..., None]:
    """Return the function that saves the pictures of a training run (`draw` of `training.Experiment`)."""

    def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
        pictures(model, folder, (valid or train).only(model.modalities), dataset)

    return draw


def pictures(model: MultimodalVAE, folder: Path, examples: Examples, dataset: Dataset) -> None:
    """Save samples from the prior, samples given the texts of `Dataset.shown`, and reconstructions, into a folder."""
    if not model.modality["image"].given:
        samples(model, {}, 64, folder / "prior.png", dataset)
    reconstructions(model, examples.take(slice(32)), folder / "reconstructions.png", dataset)
    if "text" in model.modalities:
        conditional(model, folder / "conditional.png", dataset)


def conditional(model: MultimodalVAE, path: Path, dataset: Dataset) -> None:
    """Save a row of 12 samples for each text in `Dataset.shown`."""
    text = torch.cat([dataset.parse(text) for text in dataset.shown]).to(model.device)
    z = model.posterior({"text": text}).sample((12,))  # (12, T, D)
    images = model.decode(z, ["image"], {"text": text})["image"].mean.transpose(0, 1)  # (T, 12, 1, H, W)
    plots.image_grid(path, images, plots.visible(dataset.names(text)), title="samples given the text")


def _texts(x: dict[str, Tensor], dataset: Dataset) -> list[str]:
    """Return the names of the texts of N examples; empty strings if they have none."""
    return dataset.names(x["text"]) if "text" in x else [""] * len(x["image"])


def _captions(x: dict[str, Tensor], dataset: Dataset) -> list[str]:
    """Return the texts of N examples as pictures show them; empty strings if they have none."""
    return plots.visible(_texts(x, dataset)) if "text" in x else _texts(x, dataset)


def _inputs(config: Config, dataset: Dataset) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    """Return what --condition-on-text and --condition-on-image give the model.

    Returns:
        {modality: (1, ...)}, a title for it, and {modality: text or file} for the name of the picture.
    """
    inputs, titles, names = {}, [], {}
    if config.condition_on_text is not None:
        try:
            inputs["text"] = dataset.parse(config.condition_on_text)
        except InputError as error:
            raise InputError(f"--condition-on-text: {error}") from error
        (names["text"],) = dataset.names(inputs["text"])
        titles.append(f"the text {plots.visible([names['text']])[0]}")
    if config.condition_on_image is not None:
        inputs["image"], names["image"] = _given_image(config, dataset)
        titles.append("the image at the left")
    return inputs, " and ".join(titles), dict(sorted(names.items()))


def _given_image(config: Config, dataset: Dataset) -> tuple[Tensor, str]:
    """Return the image that --condition-on-image names, a file or a random test image of a text.

    A model of binary images gets test images as they were in training, and files with pixels drawn anew.

    Returns:
        (1, 1, H, W) in [0, 1], and the name of the file or the text.
    """
    value = config.condition_on_image
    if os.path.isfile(value):  # False too where a text is too long for a file's name
        with open_picture(Path(value), "give another", f"--condition-on-image {value}") as file:
            image = file.convert("L").resize((dataset.size, dataset.size))
        image = torch.from_numpy(np.asarray(image) / 255).float()[None, None]
        binary = load_config(config.model, dataset.name).get("binary")
        return torch.bernoulli(image) if binary else image, Path(value).name
    try:
        text = dataset.parse(value)
    except InputError as error:
        raise InputError(f"--condition-on-image {value}: there is no such file, and {error}") from error
    examples = load_as_trained("test", config, dataset)
    rows = (examples.modalities["text"] == text).view(len(examples), -1).all(dim=1).nonzero().squeeze(1)
    more = "raise --limit" if config.limit else "ask for another"
    require(len(rows) > 0, f"there is no {value} among the {len(examples)} test images: {more}")
    return examples[rows[torch.randint(len(rows), (1,))]].modalities["image"], dataset.names(text)[0]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
