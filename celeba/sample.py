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

from celeba.attributes import ATTRIBUTES
from celeba.data import attribute_names, load, parse
from celeba.options import FaceOptions
from common.data import Examples
from common.data.image_caches import Kind, decode
from common.errors import require
from common.models import MultimodalVAE
from reports import options, plots, sampling, tables
from reports.sampling import COLUMNS, Given, Shown, errors_begin_with
from training import run_from_command_line

import torch
import tyro
from torch import Tensor
from torch.distributions import Distribution

N_POOL = 10_000  # draws from the prior from which those with given attributes are chosen
FACES = Shown(("image",))


@dataclass
class Config(FaceOptions, options.ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_image", "condition_on_attrs", "reconstruct")

    n_samples: int = 64
    """number of pictures"""
    condition_on_image: str | None = None
    """path of a photograph, framed like CelebA's aligned ones;
    or an attribute, for a random test image with it (~ before its name: without it)"""
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
    with errors_begin_with("--condition-on-attrs: "):
        asked = parse(config.condition_on_attrs)
    has_condition = bool(asked) or config.condition_on_image is not None
    require(not config.reconstruct or not has_condition, "--reconstruct takes no condition: leave one of them out")
    model = config.trained_model(experiment)
    torch.manual_seed(config.seed)
    if config.reconstruct:
        path, examples = config.samples_dir / "reconstructions.png", load("test", config).take(slice(config.n_samples))
        values = sampling.reconstructions(path, model, examples, FACES, "attributes")
        known = examples.modalities
    else:
        given = given_by(config, asked, model)
        path = config.path(given.names)
        latents = config.latents(model, lambda: arranged(load("train", config)))
        values = sampling.samples(path, model, config.n_samples, FACES, given=given, latents=latents)
        known = given.inputs
        if config.condition_on_image is not None and len(model.modelled) > 1:
            print(prediction(model, given.inputs["image"]))
    print(path)
    if len(model.modalities) > 1:
        shown = values if len(model.modelled) > 1 else known  # a cvae is given the attributes, and models none
        print(sampling.write_lines(path.with_suffix(".txt"), attribute_names(stacked(shown))))


def stacked(values: Mapping[str, Tensor]) -> Tensor:
    """Return the attributes (..., 18) among values, as one modality or as 18."""
    return values["attrs"] if "attrs" in values else torch.stack([values[name] for name in ATTRIBUTES], dim=-1)


@torch.no_grad()
def given_by(config: Config, asked: Mapping[str, int], model: MultimodalVAE) -> Given:
    """Return what --condition-on-attrs and --condition-on-image give the model.

    Args:
        asked: the attributes, {name: 1 or 0}.
    """
    needs_attributes = bool(model.modality["image"].given)
    require(bool(asked) or not needs_attributes, "this model needs attributes: give --condition-on-attrs NAME ...")
    inputs, names, beside = {}, {}, None
    words = [name if value else f"not {name}" for name, value in asked.items()]
    title = ", ".join(words)
    if config.condition_on_image is not None:
        inputs["image"] = given_image(config)
    if asked:
        inputs |= giver(model)(asked, config.n_samples)
        names["attrs"] = " ".join(words)
    if "image" in inputs:
        names["image"] = Path(config.condition_on_image).name.replace("~", "not ")
        title = f"{title} and the image at the left" if title else "the image at the left, its reconstruction below"
        seen = {name: x[:1].to(model.device) for name, x in inputs.items() if name == "image" or needs_attributes}
        beside = torch.cat([seen["image"], model.reconstruct(seen)["image"]])
    return Given(inputs, names, title, beside)


@torch.no_grad()
def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the pictures of a training run: samples from the prior and given each attribute, and reconstructions."""
    if not model.modality["image"].given:
        sampling.samples(folder / "prior.png", model, 64, FACES)
    examples = (valid or train).take(slice(32))
    sampling.reconstructions(folder / "reconstructions.png", model, examples, FACES, "attributes")
    if len(model.modalities) > 1:
        rows, give = [], giver(model)
        for name in ATTRIBUTES:
            inputs = give({name: 1}, COLUMNS)
            z = model.posterior(inputs).sample()
            rows.append(model.decode(z, ["image"], inputs)["image"].mean)
        title = "samples given the attribute"
        plots.image_grid(folder / "conditional.png", torch.stack(rows), ATTRIBUTES, title=title)


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


@torch.no_grad()
def prediction(model: MultimodalVAE, image: Tensor) -> str:
    """Return a Markdown table of the attributes' probabilities given an image (1, 3, 64, 64), the likeliest first."""
    q = model.posterior({"image": image.to(model.device)})
    (row,) = probabilities(model.decode(q.point)).tolist()
    rows = [(name, tables.percent(p)) for p, name in sorted(zip(row, ATTRIBUTES, strict=True), reverse=True)]
    return str(tables.Table("attributes", {}, ("attribute", "probability, %"), rows))


def probabilities(p: Mapping[str, Distribution]) -> Tensor:
    """Return the probability of each attribute, (..., 18), from a model's decoded distributions."""
    return stacked({name: q.mean for name, q in p.items() if name != "image"})


def given_image(config: Config) -> Tensor:
    """Return the image (1, 3, 64, 64) in [0, 1] that --condition-on-image names: a file, or a random test image.

    Raises:
        InputError: it is neither a readable file nor an attribute that a test image has.
    """
    value = config.condition_on_image
    if os.path.isfile(value):  # False too where a text is too long for a file's name
        return torch.from_numpy(decode(Path(value), Kind()) / 255).float()[None]
    with errors_begin_with("--condition-on-image: there is no such file, and "):
        ((name, present),) = parse([value]).items()
    examples = load("test", config)
    rows = (examples.modalities["attrs"][:, ATTRIBUTES.index(name)] == present).nonzero().squeeze(1)
    require(len(rows) > 0, f"none of the {len(examples)} test images is {value}: ask for another, or raise --limit")
    return examples[rows[torch.randint(len(rows), (1,))]].modalities["image"]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
