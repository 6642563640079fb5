"""Sample a model of CelebA: from the prior, given an image, given attributes, given both.

    python sample.py trained_models                                       64 faces and their attributes from the prior
    python sample.py trained_models --mixture 10 --data-dir data          from ten Gaussians fitted to latents
    python sample.py trained_models --cluster 3                           from a cluster of CMVAE's prior
    python sample.py trained_models --condition-on-attrs Male Smiling     given attributes; ~Male for not Male
    python sample.py trained_models --condition-on-image FILE             given a photograph (or, with an attribute's
                                                                          name, a random test image that has it)
    python sample.py trained_models --reconstruct                         test images and their reconstructions

Writes prior.png, mixture_10.png, cluster_3.png, given_attrs_Male_Smiling.png, ... or reconstructions.png, named by what
was asked: the decoded means; and a .txt of the same name, a line with the predicted attributes of each. Given an image
it also shows its reconstruction, and prints the probability of each attribute. If the attributes are one modality,
those that are not asked for are drawn from the model's p(others|those asked for); a cvae takes them as 0.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import tyro
from torch import Tensor
from torch.distributions import Distribution

from celeba.attributes import ATTRIBUTES
from celeba.data import attribute_names, load, parse
from celeba.options import FaceOptions
from common.checkpoints import load_model
from common.data import Examples
from common.data.image_caches import Kind, decode
from common.errors import InputError, require
from common.models import MultimodalVAE
from reports import generated, options, plots, sample_files, tables
from training import devices, run_from_command_line

COLUMNS = 8
N_POOL = 10_000  # draws from the prior from which those with given attributes are chosen


@dataclass
class Config(FaceOptions, options.ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_image", "condition_on_attrs", "reconstruct")

    n_samples: int = 64
    """number of pictures"""
    condition_on_image: str | None = None
    """path of a photograph, framed like CelebA's aligned ones; or an attribute, for a random test image with it (~
    before its name: without it)"""
    condition_on_attrs: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--condition-on-text"])] = ()
    """attributes that are present, and with ~ before the name those that are absent: Male ~Smiling"""
    reconstruct: bool = False
    """reconstruct the first test images instead"""


def main(
    config: Config, experiment: str = "celeba", arranged: Callable[[Examples], Examples] = lambda faces: faces
) -> None:
    """Save a picture and a file of attributes, and print their paths.

    Args:
        arranged: makes the model's modalities of those that `celeba.data.load` returns.

    Raises:
        InputError: the options exclude each other, or name no attribute or image.
    """
    config.check()
    try:
        asked = parse(config.condition_on_attrs)
    except InputError as error:
        raise InputError(f"--condition-on-attrs: {error}") from error
    has_condition = bool(asked) or config.condition_on_image is not None
    require(not config.reconstruct or not has_condition, "--reconstruct takes no condition: leave one of them out")
    model = load_model(config.model, experiment).to(devices.select(config.cuda))
    torch.manual_seed(config.seed)
    folder = config.samples_dir
    picture = folder / ("reconstructions.png" if config.reconstruct else f"{name_of(config, asked)}.png")
    with torch.no_grad():
        if config.reconstruct:
            examples = load("test", config)
            attributes = reconstructions(model, examples.take(slice(config.n_samples)), picture)
        else:
            image = given_image(config) if config.condition_on_image is not None else None
            latents = config.latents(model, lambda: arranged(load("train", config)))
            attributes = samples(model, asked, image, config.n_samples, picture, latents)
            if image is not None and len(model.modelled) > 1:
                print(prediction(model, image))
    print(picture)
    if attributes is not None:
        print(sample_files.write_lines(picture.with_suffix(".txt"), attribute_names(attributes)))


def name_of(config: Config, asked: Mapping[str, int]) -> str:
    """Return the name of the files of samples given a config's image, and attributes {name: 1 or 0}."""
    names = {}
    if asked:
        names["attrs"] = " ".join(negated(name, value) for name, value in asked.items())
    if config.condition_on_image is not None:
        names["image"] = Path(config.condition_on_image).name.replace("~", "not ")
    return config.sample_name(**names)


def negated(name: str, value: int) -> str:
    """Return an attribute as titles name it: "Male", or for the value 0 "not Male"."""
    return name if value else f"not {name}"


def samples(
    model: MultimodalVAE,
    asked: Mapping[str, int],
    image: Tensor | None,
    n: int,
    path: Path,
    latents: Distribution | None = None,
) -> Tensor | None:
    """Save n samples given attributes and an image, or from the prior; return their attributes' probabilities (n, 18).

    A model that only sees attributes (cvae) returns the given ones, one without attributes (vae) None.

    Args:
        asked: the given attributes, {name: 1 or 0}.
        image: the given image (1, 3, 64, 64) in [0, 1]; None for none.
        path: the picture to write; a given image and its reconstruction stand at the left.
        latents: what to draw z from in place of the prior.
    """
    lacking = set(model.modality["image"].given) if not asked else set()
    require(not lacking, "this model needs attributes: give --condition-on-attrs NAME ...")
    inputs = giver(model)(asked, n) if asked else {}
    title = ", ".join(negated(name, value) for name, value in asked.items())
    if image is not None:
        inputs["image"] = image.to(model.device).expand(n, -1, -1, -1)
        title = f"{title} and the image at the left" if title else "the image at the left, its reconstruction below"
    z = model.posterior(inputs).sample() if inputs else model.draw_latents(n, latents)  # (n, D)
    p = model.decode(z, given=inputs)
    images, _ = plots.in_rows(p["image"].mean, [""] * n, COLUMNS)
    if image is not None:
        first = torch.full_like(images[:, 0], torch.nan)
        if len(images) == 1:  # a second row, for the reconstruction
            images = torch.cat([images, torch.full_like(images, torch.nan)])
            first = first.repeat(2, 1, 1, 1)
        for_reconstruction = {
            name: x[:1] for name, x in inputs.items() if name == "image" or model.modality["image"].given
        }
        first[:2] = torch.cat([image.to(first), model.reconstruct(for_reconstruction)["image"]])
        images = plots.beside(first, images)
    plots.image_grid(path, images, title=f"samples given {title}" if title else generated.title_of(latents))
    return probabilities(p) if len(p) > 1 else inputs.get("attrs")


def reconstructions(model: MultimodalVAE, examples: Examples, path: Path) -> Tensor | None:
    """Save images above their reconstructions from the image alone; return their attributes' probabilities (N, 18).

    A cvae is given the attributes too, and returns them; a model without attributes (vae) returns None.
    """
    batch = examples.only(model.modalities).to(model.device)[:]
    from_image_alone = "image" in model.encoder
    given = ("image",) if from_image_alone else model.modalities
    image = batch.modalities["image"]
    p = model.decode(model.variational_posterior.point(model.posterior(batch, given)), given=batch.modalities)
    rows = {label: (x, [""] * len(x)) for label, x in {"given": image, "decoded": p["image"].mean}.items()}
    images, labels, _ = plots.alternating(rows, COLUMNS)
    title = f"reconstructions from the image{'' if from_image_alone else ' and its attributes'}"
    plots.image_grid(path, images, labels, title=title)
    return probabilities(p) if len(p) > 1 else batch.modalities.get("attrs")


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the pictures of a training run: samples from the prior and given each attribute, and reconstructions."""
    if not model.modality["image"].given:
        samples(model, {}, None, 64, folder / "prior.png")
    reconstructions(model, (valid or train).take(slice(32)), folder / "reconstructions.png")
    if len(model.modalities) > 1:
        conditional(model, folder / "conditional.png")


def conditional(model: MultimodalVAE, path: Path) -> None:
    """Save a row of 8 samples for each attribute."""
    rows, given = [], giver(model)
    for name in ATTRIBUTES:
        inputs = given({name: 1}, COLUMNS)
        z = model.posterior(inputs).sample()
        rows.append(model.decode(z, ["image"], inputs)["image"].mean)
    plots.image_grid(path, torch.stack(rows), ATTRIBUTES, title="samples given the attribute")


def giver(model: MultimodalVAE) -> Callable[[Mapping[str, int], int], dict[str, Tensor]]:
    """Return a function (asked, n) -> the model's inputs for n examples with the attributes asked, {name: 1 or 0}.

    If attrs is one modality, the function draws the other attributes from the model (`completed`); in a model that only
    sees attributes (cvae) the others are 0.
    """
    require(len(model.modalities) > 1, "this model has no attributes: leave out --condition-on-attrs")
    if "attrs" not in model.modalities:
        device = model.device
        return lambda asked, n: {name: torch.full((n,), value, device=device) for name, value in asked.items()}
    if "attrs" not in model.modelled:
        return lambda asked, n: {
            "attrs": torch.tensor([float(asked.get(x, 0)) for x in ATTRIBUTES], device=model.device).expand(n, -1)
        }
    logits = model.decode(model.prior().sample((N_POOL,)), ["attrs"])["attrs"].logits  # (N_POOL, 18)
    return lambda asked, n: {"attrs": completed(logits, asked, n)}


def completed(logits: Tensor, asked: Mapping[str, int], n: int) -> Tensor:
    """Draw attributes (n, 18) from p(attrs|asked): z from the prior weighted by p(asked|z), then attrs from p(attrs|z).

    Args:
        logits: of the attributes given draws of z from the prior, (N_POOL, 18).
        asked: the given attributes, {name: 1 or 0}.
    """
    index = [ATTRIBUTES.index(name) for name in asked]
    values = torch.tensor(list(asked.values()), dtype=logits.dtype, device=logits.device)
    log_p = -torch.nn.functional.softplus((1 - 2 * values) * logits[:, index]).sum(dim=1)  # log p(asked|z)
    chosen = torch.multinomial(log_p.softmax(dim=0), n, replacement=True)
    attributes = torch.bernoulli(logits[chosen].sigmoid())
    attributes[:, index] = values
    return attributes


def probabilities(p: Mapping[str, Distribution]) -> Tensor:
    """Return the probability of each attribute, (..., 18), from a model's decoded distributions."""
    return p["attrs"].mean if "attrs" in p else torch.stack([p[name].mean for name in ATTRIBUTES], dim=-1)


def prediction(model: MultimodalVAE, image: Tensor) -> str:
    """Return a Markdown table of the attributes' probabilities given an image (1, 3, 64, 64), the likeliest first."""
    q = model.posterior({"image": image.to(model.device)})
    (row,) = probabilities(model.decode(model.variational_posterior.point(q))).tolist()
    ranked = sorted(zip(row, ATTRIBUTES, strict=True), reverse=True)
    rows = [(name, tables.percent(p)) for p, name in ranked]
    return str(tables.Table("attributes", dict(rows), ("attribute", "probability, %"), rows))


def given_image(config: Config) -> Tensor:
    """Return the image (1, 3, 64, 64) in [0, 1] that --condition-on-image names: a file, or a random test image.

    Raises:
        InputError: it is neither a readable file nor an attribute that a test image has.
    """
    value = config.condition_on_image
    if os.path.isfile(value):  # False too where a text is too long for a file's name
        return torch.from_numpy(decode(Path(value), Kind()) / 255).float()[None]
    try:
        ((name, present),) = parse([value]).items()
    except InputError as error:
        raise InputError(f"--condition-on-image: there is no such file, and {error}") from error
    examples = load("test", config)
    rows = (examples.modalities["attrs"][:, ATTRIBUTES.index(name)] == present).nonzero().squeeze(1)
    require(len(rows) > 0, f"none of the {len(examples)} test images is {value}: ask for another, or raise --limit")
    return examples[rows[torch.randint(len(rows), (1,))]].modalities["image"]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
