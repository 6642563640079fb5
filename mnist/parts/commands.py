"""What halves.py and pixels.py share: images as parts, where any part may be missing, and the commands on them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from common.checkpoints import load_config
from common.data import Batch, Examples
from common.data.image_caches import in_mode, open_picture
from common.errors import brief, require, require_positive
from common.estimators import importance_estimates
from common.models import MultimodalVAE
from mnist.data import MNIST
from mnist.parts.model import N_PIXELS, SHAPES, SIZE, binarised, build, columns, inputs, join, n_parts, pixels
from mnist.parts.model import split as split_images
from reports import metrics, plots, sampling, tables
from reports.options import LoglikeConfig, SamplesConfig
from training import Experiment, objective_of, options, run
from training.model_options import ObjectiveOptions, PosteriorOption

import numpy as np
import torch
import tyro
from torch import Tensor

HALVES = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
BATCH_SIZE = 100
COMPLETIONS = 6
N_LATENTS, SCALE = 20, 0.1  # as in poe-vae


@dataclass
class Train(ObjectiveOptions, options.RunConfig):
    """Train a model."""

    posterior: PosteriorOption = "gaussian"
    learn_prior: bool = False
    """learn the scales of a gaussian or laplace prior; not with --fusion poe or mopoe, whose products hold N(0, I)"""
    likelihood: Literal["bernoulli", "laplace", "normal"] = "bernoulli"
    """distribution of the pixels given z. bernoulli: cross entropy of intensities;
    laplace, normal: densities, whose log-likelihoods cannot be compared with bernoulli's"""
    likelihood_scale: float | None = None
    """standard deviation of --likelihood normal, scale of laplace. None: 0.1, as in poe-vae"""
    binary: bool = False
    """set each pixel above 127 of 255 to 1 and each other one to 0, as poe-vae does, in the other scripts too"""
    missing: float = 0.0
    """fraction of the parts of the training and validation images that are missing: drawn at random once"""
    n_latents: Annotated[int | None, options.LATENT_NAMES] = None
    """dimensions of z. None: 20, as in poe-vae's README, or what --n-vmfs and --vmf-dim need"""
    n_vmfs: int = 1
    """unit spheres of --posterior vmf: each has an equal part of z and a von Mises-Fisher distribution"""
    vmf_dim: int | None = None
    """dimensions of each sphere of --posterior vmf; its part of z has one more. None: from --n-latents"""
    hidden: int = 200
    """width of the networks' hidden layers, as in poe-vae's README"""
    layers: int = 1
    """hidden layers of each network, as in poe-vae's README"""
    embed_dim: int | None = None
    """size of the embeddings that tell the halves or pixels apart in networks that they share.
    None: 2 for each hidden unit, its scale and its shift"""
    batch_size: int = 100
    """examples in a batch"""
    epochs: int = 100
    """passes over the training examples, as in poe-vae's README"""
    lr: float = 1e-3
    """learning rate"""
    eval_interval: int = 1
    """score the model on the validation examples after every Nth epoch and the last, to find the best one"""
    paired_fraction: tyro.conf.Suppress[float] = 1.0
    settings: tyro.conf.Suppress[str] = "recommended"  # no paper has more

    def __post_init__(self) -> None:
        self.fill(n_latents=N_LATENTS if self.vmf_dim is None else self.n_vmfs * (self.vmf_dim + 1))
        self.fill(likelihood_scale=None if self.likelihood == "bernoulli" else SCALE)
        super().__post_init__()

    def check(self) -> None:
        self._check_spheres()
        super().check()
        require_positive(self, "eval_interval")
        often = self.patience is None or self.eval_interval <= self.patience
        require(often, f"--patience {self.patience} is shorter than --eval-interval: raise it to {self.eval_interval}")
        require(self.eval_interval == 1 or self.valid != 0, "--eval-interval needs validation examples: raise --valid")
        require(0 <= self.missing < 1, f"--missing must lie in [0, 1), it is {self.missing}")
        require_positive(self, "hidden", "layers", "embed_dim", "likelihood_scale")
        require(
            self.likelihood_scale is None or self.likelihood != "bernoulli",
            "--likelihood-scale needs --likelihood normal or laplace (got bernoulli)",
        )
        shares = self.layout != "list" and (self.fusion != "unstructured" or self.decoder == "shared")
        require(
            self.embed_dim is None or shares,
            "--embed-dim needs parts that share a network (--layout vectorised; --decoder shared, --fusion poe or set)",
        )

    def _check_spheres(self) -> None:
        """Raise InputError if --n-vmfs, --vmf-dim and --n-latents contradict each other or --posterior."""
        n, dim, given = self.n_vmfs, self.vmf_dim, self.n_latents
        spheres = f"--n-vmfs {n}" if dim is None else f"--n-vmfs {n} --vmf-dim {dim}"
        is_vmf = self.posterior == "vmf"
        require(is_vmf or (n == 1 and dim is None), f"{spheres} needs --posterior vmf (got {self.posterior})")
        require_positive(self, "n_vmfs", "vmf_dim")
        makes = given if dim is None else n * (dim + 1)
        require(given == makes, f"{spheres} makes {makes} latents: leave out --n-latents {given}")
        fits = given % n == 0 and given // n >= 2
        require(not is_vmf or fits, f"{spheres} needs a multiple of {n} as --n-latents, {2 * n} or more (got {given})")


class Observed:
    """The part of an image that a user names, see `Sample`. Call with n: the given pixels of n images, (n, 784) bool.

    Args:
        seed: of a fraction's random pixels.

    Raises:
        InputError: neither the name of a half, nor a fraction, nor a readable image.
    """

    def __init__(self, value: str, seed: int = 0) -> None:
        self.names = (value, HALVES[value]) if value in HALVES else ("the observed", "the rest")
        self.generator = torch.Generator().manual_seed(seed)
        self.fraction, self.pixels = None, None
        try:
            self.fraction = float(value)
        except ValueError:
            self.pixels = _half(value) if value in HALVES else torch.from_numpy(_mask_of(value)).flatten()
        known = self.fraction is None or 0 <= self.fraction <= 1
        require(known, f"--observed {value}: a fraction of the pixels lies in [0, 1]")

    def __call__(self, n: int) -> Tensor:
        if self.pixels is not None:
            return self.pixels.expand(n, -1)
        order = torch.rand(n, N_PIXELS, generator=self.generator).argsort(dim=1)
        return order < round(self.fraction * N_PIXELS)


def _half(name: str) -> Tensor:
    first = torch.arange(SIZE) < SIZE // 2
    half = first if name in ("top", "left") else ~first
    return (half[:, None] if name in ("top", "bottom") else half).expand(SIZE, SIZE).flatten()


def _mask_of(path: str) -> np.ndarray:
    meant = f"{', '.join(HALVES)}, a fraction, or an image of what is given"
    # False too where a text is too long for a file's name
    require(os.path.isfile(path), f"--observed {brief(path)} is none of {meant}")
    with open_picture(Path(path), f"give {meant}", f"--observed {path}") as file:
        return np.asarray(in_mode(file, "L").resize((SIZE, SIZE))) > 127


@dataclass
class Sample(SamplesConfig):
    """Complete test images from a part of them, or draw from the prior."""

    observed: str | None = None
    """part that is given: top, bottom, left, right; a fraction of the pixels, drawn anew for each image;
    or the path of an image that is bright where pixels are given. None: none, for samples from the prior"""
    n_samples: int = 8
    """images to complete, or to draw"""


@dataclass
class Loglike(LoglikeConfig):
    """Log-likelihoods of the test images, of a part of them, and of the rest given it."""

    observed: str = "top"
    """part that is given: top, bottom, left, right, a fraction of the pixels, or an image's path (see sample --help)"""


def commands(train: type[Train]) -> object:
    """What the command line of a script takes: one of the three."""
    return (
        Annotated[train, tyro.conf.subcommand("train")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Loglike, tyro.conf.subcommand("loglike")]
    )


def main(config: Train | Sample | Loglike, name: str) -> dict[str, dict[str, float]] | None:
    """Run the command that a configuration belongs to.

    Args:
        name: of the experiment, "halves" or "pixels".

    Returns:
        the estimates of loglike.
    """
    if isinstance(config, Train):
        run(config, Experiment(name, load, build, objective_of, draw))
        return None
    config.check()
    return (sample if isinstance(config, Sample) else loglike)(config, name)


def load(split: str, config: Train) -> Examples:
    """Load a split of MNIST's images as parts, a fraction --missing of them absent; see `mnist.data.load`."""
    images = load_images(split, config, config.binary).modalities["image"]
    parts, mask = split_images(images, SHAPES[config.layout]), None
    if config.missing:
        generator = torch.Generator().manual_seed(config.seed)
        mask = torch.rand(len(images), n_parts(config.layout), generator=generator) >= config.missing
    return Examples(parts, mask=mask)


def load_images(split: str, config: options.DataOptions, binary: bool) -> Examples:
    """Load a split of MNIST's images, binarised or not."""
    images = MNIST.load(split, config).modalities["image"]
    return Examples({"image": binarised(images) if binary else images})


def load_as_trained(config: LoglikeConfig | SamplesConfig) -> Examples:
    """Load MNIST's test images as the model knows them."""
    return load_images("test", config, bool(load_config(config.model).get("binary")))


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the pictures of a training: samples of the prior, and images completed from their tops."""
    device = model.device
    prior(model, 64, folder / "prior.png")
    images = join((valid or train).take(slice(8)).modalities).to(device).float() / 255
    complete(model, images, columns(model, Observed("top")(len(images))), folder / "from_top.png")


@torch.no_grad()
def sample(config: Sample, experiment: str) -> None:
    """Save completions of test images, or samples from the prior, and print the picture's path."""
    model = config.trained_model(experiment)
    folder = config.samples_dir
    torch.manual_seed(config.seed)
    if config.observed is None:
        prior(model, config.n_samples, folder / "prior.png")
        print(folder / "prior.png")
        return
    examples = load_as_trained(config)
    images = examples.to(model.device)[: config.n_samples].modalities["image"]
    given = columns(model, Observed(config.observed, config.seed)(len(images)))
    picture = folder / f"from_{sampling.readable(Path(config.observed).name)}.png"
    complete(model, images, given, picture)
    print(picture)


def prior(model: MultimodalVAE, n: int, path: Path) -> None:
    """Save the means of p(x|z) for n draws of z from the prior."""
    images, _ = plots.in_rows(join(model.generate(n)), [""] * n, 8)
    plots.image_grid(path, images, title="samples from the prior")


def complete(model: MultimodalVAE, images: Tensor, given: Tensor, path: Path) -> None:
    """Save images (N, 1, 28, 28), what is given of them, and completions: draws of q(z|given), decoded.

    Args:
        given: which of the model's parts, (N, M) bool.
    """
    known = pixels(given).to(images.device)
    batch = Batch(inputs(model, images), given.to(images.device))
    z = model.posterior(batch).sample((COMPLETIONS,)).transpose(0, 1)  # (N, n, D)
    decoded = join(model.likelihood.point(model.decode(z.flatten(0, 1)))).unflatten(0, z.shape[:2])
    completed = torch.where(known[:, None], images[:, None], decoded)
    first = torch.stack([images, torch.where(known, images, 0.5)], dim=1)
    blank = torch.full_like(images[:, None], torch.nan)
    title = "an image, what is given of it, and completions"
    plots.image_grid(path, torch.cat([first, blank, completed], dim=1), title=title)


def loglike(config: Loglike, experiment: str) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    model = config.trained_model(experiment)
    examples = load_as_trained(config)
    torch.manual_seed(config.seed)
    values = evaluate(model, examples, Observed(config.observed, config.seed), **config.sampling)
    return tables.report_estimates(values, config, experiment, len(examples))


def evaluate(
    model: MultimodalVAE, examples: Examples, observed: Observed, **sampling: float | None
) -> dict[str, Tensor]:
    """log p of whole images, of the observed part and of the rest given it, for every example: {name: (N,)}, nats.

    log p(image) and log p(part) share samples of q(z|image); rows named "z from q(z|part)" use samples of q(z|part).
    Both are lower bounds in expectation. log p(rest|part) is estimated twice. The first value is log p(image) minus
    the higher estimate of log p(part); it is too high if that estimate is too low. The second uses samples of
    q(z|part), as completions do; it is too low if these samples explain the rest poorly.

    Args:
        sampling: n_samples and tolerance of `common.estimators.importance_estimates`.
    """
    examples = examples.only(["image"])
    parts = {name: ("image", lambda x, name=name: inputs(model, x)[name]) for name in model.modalities}
    examples = Examples(examples.modalities, examples.rows, derived=parts)
    part, rest = observed.names

    def estimate(model: MultimodalVAE, batch: Batch) -> dict[str, Tensor]:
        x = {name: batch.modalities[name] for name in model.modalities}
        given = columns(model, observed(len(batch))).to(batch.modalities["image"].device)
        everything = torch.ones_like(given)
        image, of_part = importance_estimates(model, x, [everything, given], everything, **sampling)
        completed, of_given = importance_estimates(model, x, [everything, given], given, **sampling)
        return {
            **image.named("log p(image)"),
            **of_part.named(f"log p({part})"),
            **of_given.named(f"log p({part}), z from q(z|{part})"),
            f"log p({rest}|{part})": image.value,  # less log p of the part, below
            f"log p({rest}|{part}), z from q(z|{part})": completed.value - of_given.value,
        }

    values = metrics.evaluate_examples(model, examples, [estimate], BATCH_SIZE)
    nearer = max((values[f"log p({part})"], values[f"log p({part}), z from q(z|{part})"]), key=torch.mean)
    values[f"log p({rest}|{part})"] -= nearer
    return values
