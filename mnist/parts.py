"""What halves.py and pixels.py share: images as parts, any of which may be missing, and the commands on them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log, prod, sqrt
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from common import devices, options, plots, reports, runs
from common.bounds import Objective
from common.checkpoints import load_model
from common.data import Batch, Examples, hold_out, n_columns
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, swish_mlp
from common.errors import InputError, require
from common.estimators import importance_estimates
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood, LaplaceLikelihood, NormalLikelihood
from common.models import FAMILIES, VAE, MultimodalVAE
from common.objective_options import ObjectiveOptions, by_name
from common.training import fit
from common.variational_strategies import SetStrategy
from mnist.data import MNIST

SIZE, N_PIXELS = 28, 784
LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood,
    "laplace": partial(LaplaceLikelihood, 0.2),
    "normal": partial(NormalLikelihood, 0.2),
}
BATCH_SIZE = 100


class Networks(Protocol):
    """What of a configuration makes the model."""

    layout: str
    decoder: str
    fusion: str
    posterior: str
    likelihood: str
    learn_prior: bool
    n_latents: int
    hidden: int
    layers: int


@dataclass
class Train(options.RunConfig, ObjectiveOptions):
    """Train a model."""

    posterior: Literal["gaussian", "laplace", "vmf", "ebm"] = "gaussian"
    """the experts' family, the prior's too. laplace: not of --fusion poe and mopoe; vmf: von Mises-Fisher, z on the
    unit sphere; ebm: of --fusion poe, Gaussian times a learned exp(-E), prior N(0, I)"""
    learn_prior: bool = False
    """learn the scales of a gaussian or laplace prior"""
    likelihood: Literal["bernoulli", "laplace", "normal"] = "bernoulli"
    """of the pixels given z: bernoulli scores intensities by cross entropy, the others are densities of scale 0.2,
    whose likelihoods do not compare with it"""
    missing: float = 0.0
    """fraction of the parts, of the training and validation images, that is missing, at random and for good"""
    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 20
    """latent dimensions (poe-vae's README: 20)"""
    hidden: int = 200
    """width of the networks' hidden layers (poe-vae's README: 200)"""
    layers: int = 1
    """hidden layers of each network (poe-vae's README: 1)"""
    batch_size: int = 100
    """examples a step"""
    epochs: int = 100
    """passes over the training examples (poe-vae's README: 100)"""
    annealing_epochs: int = 0
    """epochs over which the KL's weight rises from 0 to 1"""
    lr: float = 1e-3
    """Adam's learning rate"""
    paired_fraction: tyro.conf.Suppress[float] = 1.0

    def check(self) -> None:
        super().check()
        self.check_objective(f"--fusion {self.fusion}", self.objectives(), self.fusion, self.posterior)
        require(0 <= self.missing < 1, f"--missing must lie in [0, 1), it is {self.missing}")
        for name in ("hidden", "layers"):
            require(getattr(self, name) > 0, f"{options.option(name)} must be positive, not {getattr(self, name)}")
        require(
            not self.learn_prior or self.posterior in ("gaussian", "laplace"),
            f"--learn-prior: the prior of --posterior {self.posterior} has no scales",
        )

    def objectives(self) -> Sequence[str]:
        """Those that exist for the fusion, the usual one first."""
        raise NotImplementedError


@dataclass
class Sample(options.ModelConfig):
    """Complete test images from a part of them, or draw from the prior."""

    observed: str | None = None
    """the part that is given: top, bottom, left, right; a fraction of the pixels, drawn anew for each image; or the
    path of an image that is bright where pixels are given. Default: none, samples from the prior"""
    n_samples: int = 8
    """images to complete, or to draw"""
    out_dir: Path | None = None
    """where to write; default: samples/ beside the model"""


@dataclass
class Loglike(options.LoglikeConfig):
    """Log-likelihoods of the test images, of a part of them, and of the rest given it."""

    observed: str = "top"
    """the part that is given, as sample has it"""


def shapes(config: Networks) -> dict[str, tuple[int, ...]]:
    """{modality: shape}; side by side and flattened they are the pixels of an image, row by row."""
    return {
        "list": {"top": (N_PIXELS // 2,), "bottom": (N_PIXELS // 2,)},
        "vectorised": {"halves": (2, N_PIXELS // 2)},
        "pixels": {"pixel": (N_PIXELS, 1)},
    }[config.layout]


def split(images: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Images (N, 1, 28, 28) as modalities, {name: (N, *shape)}."""
    parts = images.flatten(1).split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.unflatten(1, shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def join(parts: Mapping[str, Tensor]) -> Tensor:
    """Modalities (N, ...) as images (N, 1, 28, 28)."""
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1).view(-1, 1, SIZE, SIZE)


def build(config: Networks) -> MultimodalVAE:
    """The model of the parts of an image, each in [0, 1] (`shapes`)."""
    d, hidden = config.n_latents, [config.hidden] * config.layers
    family = FAMILIES[config.posterior]
    heads = (d,) * family.n_params
    fusion = config.fusion
    if config.layout == "list":
        sizes = {name: size for name, (size,) in shapes(config).items()}
        encoder = {
            name: nn.Sequential(swish_mlp(size, *hidden), SplitLinearLayer(config.hidden, heads))
            for name, size in sizes.items()
        }
        decoder = {
            name: nn.Sequential(swish_mlp(d, *hidden), nn.Linear(config.hidden, size)) for name, size in sizes.items()
        }
    else:
        ((name, (n, size)),) = shapes(config).items()
        last = nn.Identity() if fusion == "set" else SplitLinearLayer(config.hidden, heads)
        if config.layout == "pixels":
            last = nn.Sequential(last, OneOfMany(n, gaussian=fusion == "poe" and family.n_params == 2))
        encoder = {name: SharedNetwork(n, nn.Linear(size, config.hidden), _rest(hidden, last))}
        last = nn.Linear(config.hidden, size if config.decoder == "shared" else n * size)
        if config.decoder == "shared":
            decoder = {name: SharedNetwork(n, nn.Linear(d, config.hidden), _rest(hidden, last))}
        else:
            decoder = {name: nn.Sequential(swish_mlp(d, *hidden), last, nn.Unflatten(1, (n, size)))}
    if fusion == "set":
        fusion = SetStrategy(
            nn.Sequential(swish_mlp(config.hidden, config.hidden), SplitLinearLayer(config.hidden, heads))
        )
    likelihood = GroupedLikelihood(**{name: LIKELIHOODS[config.likelihood]() for name in encoder})
    return VAE(fusion, encoder, decoder, likelihood, d, posterior=config.posterior, learn_prior=config.learn_prior)


def _rest(hidden: Sequence[int], last: nn.Module) -> nn.Sequential:
    # of mean 0 at first: else what all pixels say alike drowns the sum
    return nn.Sequential(nn.Tanh(), swish_mlp(*hidden), last)


class OneOfMany(nn.Module):
    """What one of n pixels adds to a sum of natural parameters, or to a set encoder's: 1 / sqrt(n) of it alone.

    Outputs of order 1 then make a sum of order 1. A Gaussian's are (sqrt(n) mu, logvar + log n).
    """

    def __init__(self, n: int, gaussian: bool) -> None:
        super().__init__()
        self.n, self.gaussian = n, gaussian

    def forward(self, params: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.gaussian:
            mu, logvar = params
            return sqrt(self.n) * mu, logvar + log(self.n)
        (x,) = (params,) if isinstance(params, Tensor) else params
        return (x / sqrt(self.n),)


def objective(config: Train, model: MultimodalVAE) -> Objective:
    """The objective that --obj names."""
    return by_name(config.obj or config.objectives()[0], model, config)


def main(config: Train | Sample | Loglike, experiment: str) -> dict[str, dict[str, float]] | None:
    """Run the command that a configuration is of; returns the estimates of Loglike."""
    config.check()
    command = train if isinstance(config, Train) else sample if isinstance(config, Sample) else loglike
    return command(config, experiment)


def train(config: Train, experiment: str) -> None:
    if config.dry_run:
        print(json.dumps(options.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    images = MNIST.load("train", config.data_dir, config.demo, config.download, config.limit).modalities["image"]
    mask = None
    if config.missing:
        generator = torch.Generator().manual_seed(config.seed)
        mask = torch.rand(len(images), n_columns(model.columns), generator=generator) >= config.missing
    examples, valid = hold_out(Examples(split(images, shapes(config)), mask=mask), config.valid)
    run = runs.Run(experiment, config)
    pictures = partial(draw, model, images=images[-len(valid or examples) :][:8])
    fit(model, objective(config, model), examples, valid, config, run, pictures)


def draw(model: MultimodalVAE, folder: Path, images: Tensor) -> None:
    """The pictures that training leaves: samples of the prior, images completed from their tops."""
    device = next(model.parameters()).device
    prior(model, 64, folder / "prior.png")
    images = images.to(device).float() / 255
    complete(model, images, columns(model, observed_pixels("top", len(images))), folder / "from_top.png")


@torch.no_grad()
def sample(config: Sample, experiment: str) -> None:
    model = load_model(config.model, experiment).to(devices.select(config.cuda))
    folder = config.out_dir or runs.folder_of(config.model) / "samples"
    torch.manual_seed(config.seed)
    if config.observed is None:
        prior(model, config.n_samples, folder / "prior.png")
        print(folder / "prior.png")
        return
    examples = MNIST.load("test", config.data_dir, config.demo, limit=config.limit)
    images = examples.to(next(model.parameters()).device)[: config.n_samples].modalities["image"]
    given = columns(model, observed_pixels(config.observed, len(images)))
    complete(model, images, given, folder / "completed.png")
    print(folder / "completed.png")


def prior(model: MultimodalVAE, n: int, path: Path) -> None:
    """Save the means of p(x|z) for n draws of z from the prior."""
    images, _ = plots.in_rows(join(model.generate(n)), [""] * n, 8)
    plots.image_grid(path, images, title="samples from the prior")


def complete(model: MultimodalVAE, images: Tensor, given: Tensor, path: Path, n: int = 6) -> None:
    """Save images (N, 1, 28, 28) beside what is given of them and n completions, draws of q(z|given), decoded.

    Args:
        given: which of the model's parts, (N, M) bool.
    """
    there = pixels(given).to(images.device)
    batch = Batch(inputs(model, images), given.to(images.device))
    z = model.posterior(batch).sample((n,)).transpose(0, 1)  # (N, n, D)
    decoded = join(model.likelihood.point(model.decode(z.flatten(0, 1)))).unflatten(0, z.shape[:2])
    whole = torch.where(there[:, None], images[:, None], decoded)
    first = torch.stack([images, torch.where(there, images, 0.5)], dim=1)
    blank = torch.full_like(images[:, None], torch.nan)
    title = "an image, what is given of it, and completions"
    plots.image_grid(path, torch.cat([first, blank, whole], dim=1), title=title)


def loglike(config: Loglike, experiment: str) -> dict[str, dict[str, float]]:
    model = load_model(config.model, experiment).to(devices.select(config.cuda))
    examples = MNIST.load("test", config.data_dir, config.demo, limit=config.limit)
    torch.manual_seed(config.seed)
    estimates = reports.summarise(evaluate(model, examples, config.observed, config.n_samples))
    reports.report(estimates, config, experiment, len(examples))
    return estimates


@torch.no_grad()
def evaluate(model: MultimodalVAE, examples: Examples, observed: str, n_samples: int) -> dict[str, Tensor]:
    """log p of whole images, of the observed part and of the rest given it, for every example: {name: (N,)}, nats.

    All share samples of q(z|image); the part has its own of q(z|part) too, with which the rest given it is lower or
    nearer the truth: log p(image) - log p(part) is not a bound.
    """
    examples = examples.only(["image"]).to(next(model.parameters()).device)
    part = observed if observed in HALVES else "the observed"
    rest = HALVES.get(observed, "the rest")
    rows = []
    with tqdm(total=len(examples), unit=" examples", disable=None) as bar:
        for batch in examples.batches(BATCH_SIZE):
            x = inputs(model, batch.modalities["image"])
            given = columns(model, observed_pixels(observed, len(batch))).to(examples.device)
            everything = torch.ones_like(given)
            image, of_part = importance_estimates(model, x, [everything, given], everything, n_samples)
            (alone,) = importance_estimates(model, x, [given], given, n_samples)
            rows.append(
                {
                    "log p(image)": image.value,
                    f"log p({part})": of_part.value,
                    f"log p({part}), z from q(z|{part})": alone.value,
                    f"log p({rest}|{part})": image.value - of_part.value,
                    f"log p({rest}|{part}), z from q(z|{part})": image.value - alone.value,
                    "effective samples, image": image.ess,
                    f"effective samples, {part}, z from q(z|{part})": alone.ess,
                }
            )
            bar.update(len(batch))
    return {name: torch.cat([row[name] for row in rows]).cpu() for name in rows[0]}


def inputs(model: MultimodalVAE, images: Tensor) -> dict[str, Tensor]:
    """Images (N, 1, 28, 28) as the model's modalities."""
    sizes = {name: c.stop - c.start if isinstance(c, slice) else None for name, c in model.columns.items()}
    whole = N_PIXELS // len(sizes)
    return split(images, {name: (n, whole // n) if n else (whole,) for name, n in sizes.items()})


HALVES = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}


def observed_pixels(observed: str, n: int) -> Tensor:
    """Which pixels of n images a user means, (n, 784) bool; see Sample.

    Raises:
        InputError: neither the name of a half, nor a fraction, nor a readable image.
    """
    here = torch.arange(SIZE) < SIZE // 2
    if observed in HALVES:
        half = here if observed in ("top", "left") else ~here
        grid = half[:, None] if observed in ("top", "bottom") else half
        return grid.expand(SIZE, SIZE).flatten().expand(n, -1)
    try:
        fraction = float(observed)
    except ValueError:
        return torch.from_numpy(_mask_of(observed)).flatten().expand(n, -1)
    require(0 <= fraction <= 1, f"--observed {observed}: a fraction of the pixels lies in [0, 1]")
    return torch.rand(n, N_PIXELS).argsort(dim=1) < round(fraction * N_PIXELS)


def _mask_of(path: str) -> np.ndarray:
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("L").resize((SIZE, SIZE))) > 127
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        meant = f"{', '.join(HALVES)}, a fraction, or an image of what is given"
        raise InputError(f"--observed {path}: it is neither of {meant} ({error})") from error


def columns(model: MultimodalVAE, observed: Tensor) -> Tensor:
    """Which of the model's parts are observed, (N, M) bool, given the pixels (N, 784).

    Raises:
        InputError: a part is observed partly.
    """
    parts = observed.unflatten(1, (n_columns(model.columns), -1))  # (N, M, pixels)
    given = parts.all(dim=-1)
    whole = bool((given == parts.any(dim=-1)).all())
    require(whole, "--observed: this model sees a half as a whole or not at all: top or bottom")
    return given


def pixels(given: Tensor) -> Tensor:
    """The pixels of parts (N, M): (N, 1, 28, 28) bool."""
    return given.repeat_interleave(N_PIXELS // given.shape[1], dim=1).view(-1, 1, SIZE, SIZE)
