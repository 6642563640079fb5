"""What is compared, by experiment: our model, objective and step, the originals' step, and random data like the real.

Batches and samples are the papers'; of CUB, where they take minutes, fewer.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

import celeba.loglike
import celeba19.data
import cub.model
import mnist.loglike
import mnist_svhn.loglike
import mnist_svhn.model
import vision.loglike
from benchmarks import plain, plain_faces, plain_mmvae
from benchmarks.loaders import DIGITS, FACES, PHOTOGRAPHS, VECTORS, VIEWS, Files
from benchmarks.race import Turn
from celeba.attributes import ATTRIBUTES
from common.data import Batch, Examples
from common.models import MultimodalVAE
from common.objectives import DregElbo, MvaeElbo, Objective
from common.training import devices
from common.training.meter import Meter
from common.training.steps import CapturedStep, Step
from cub.captions import END, PADDING
from vision.data import DERIVED

CPU = torch.device("cpu")
BETA = 0.5  # of MVAE's steps, as in the midst of annealing
ON_GPU = 20  # times as many steps a turn


class Experiment(NamedTuple):
    """
    build: the model.
    objective: of a model.
    plain: a model -> a step in the originals' manner.
    examples: n -> so many, random.
    files: how the originals hold these (`benchmarks.loaders`).
    evaluate: the log-likelihoods that loglike.py estimates of a model, examples and a number of samples.
    plain_evaluate: the same in the originals' manner, where they have them.
    batch_size: examples a step.
    steps: a turn, of some tenths of a second on a CPU.
    """

    build: Callable[[], MultimodalVAE]
    objective: Callable[[MultimodalVAE], Objective]
    plain: Callable[[MultimodalVAE], Callable[[Batch], None]]
    examples: Callable[[int], Examples]
    files: Files
    evaluate: Callable[[MultimodalVAE, Examples, int], object]
    batch_size: int
    steps: int = 1
    amsgrad: bool = False
    plain_evaluate: Callable[[MultimodalVAE, Examples, int], object] | None = None

    @property
    def beta(self) -> float:
        return BETA if self.objective.func is MvaeElbo else 1.0


def digits(n: int, size: int = 28, text: tuple[int, ...] = ()) -> Examples:
    """Images (n, 1, size, size) and texts (n, *text) of digits."""
    return Examples({"image": pixels(n, 1, size), "text": torch.randint(10, (n, *text))})


def of_digits(folder: str, steps: int, *shape: int | tuple[int, ...]) -> Experiment:
    options = SimpleNamespace(n_latents=64, model="mvae", posterior="gaussian", teacher_forcing=False)
    return Experiment(
        partial(import_module(f"{folder}.model").build, options),
        partial(MvaeElbo, weights={"image": plain.LAMBDA_IMAGE, "text": plain.LAMBDA_TEXT}),
        plain.training_step,
        lambda n: digits(n, *shape),
        DIGITS,
        mnist.loglike.evaluate,
        batch_size=100,
        steps=steps,
    )


def faces(n: int) -> Examples:
    return Examples({"image": pixels(n, 3, 64), "attrs": torch.randint(2, (n, len(ATTRIBUTES))).float()})


def views(n: int) -> Examples:
    gray = {name: pixels(n, 1, 64) for name in ("gray", "edge", "mask")}
    return Examples({"image": pixels(n, 3, 64), **gray}, derived=DERIVED)


def of_faces(
    folder: str,
    examples: Callable[[int], Examples],
    files: Files,
    evaluate: Callable[[MultimodalVAE, Examples, int], object],
    n_latents: int = 100,
    batch_size: int = 100,
    n_subsets: int = 0,
    scores_all: bool = False,
) -> Experiment:
    options = SimpleNamespace(n_latents=n_latents, fusion="poe", posterior="gaussian")
    return Experiment(
        partial(import_module(f"{folder}.model").build, options),
        partial(MvaeElbo, K=n_subsets, generator=torch.Generator().manual_seed(0)),
        partial(plain_faces.training_step, k=n_subsets, beta=BETA, scores_all=scores_all),
        examples,
        files,
        evaluate,
        batch_size,
    )


def pairs(n: int) -> Examples:
    return Examples({"mnist": pixels(n, 1, 28), "svhn": pixels(n, 3, 32)})


def birds(n: int, source: str) -> Examples:
    """Of captions of 16 words."""
    captions = torch.randint(3, 1590, (n, 32))
    captions[:, 16], captions[:, 17:] = END, PADDING
    return Examples({source: pixels(n, 3, 64) if source == "image" else torch.rand(n, 2048), "caption": captions})


def of_mixtures(
    name: str,
    options: dict[str, object],
    examples: Callable[[int], Examples],
    files: Files,
    K: int,
    batch_size: int,
) -> Experiment:
    module = mnist_svhn.model if name == "mnist_svhn" else cub.model
    return Experiment(
        partial(module.build, SimpleNamespace(**options, learn_prior=True)),
        partial(DregElbo, K=K, looser=True),
        partial(plain_mmvae.training_step, experiment=name, K=K),
        examples,
        files,
        mnist_svhn.loglike.evaluate,
        batch_size,
        amsgrad=True,
        plain_evaluate=partial(plain_mmvae.evaluate, name),
    )


def pixels(n: int, channels: int, size: int) -> Tensor:
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8)


of_vision = partial(of_faces, "vision", views, VIEWS, vision.loglike.evaluate, n_latents=250, batch_size=50)
PAIRS = {"model": "mmvae", "n_latents": 20, "num_hidden_layers": 1, "prior_and_posterior": "laplace"}
BIRDS = {"fusion": "moe", "vocabulary": ["word"] * 1590}
IMAGES = BIRDS | {"model": "images", "n_latents": 128, "posterior": "laplace-normal", "llik_scaling": 0.0}
FEATURES = BIRDS | {"model": "features", "n_latents": 64, "posterior": "softplus-normal", "llik_scaling": 0.002}
EXPERIMENTS = {
    "mnist": of_digits("mnist", 5),
    "fashionmnist": of_digits("fashionmnist", 5),
    "multimnist": of_digits("multimnist", 3, 50, (4,)),
    "celeba": of_faces("celeba", faces, FACES, celeba.loglike.evaluate),
    "celeba19": of_faces(
        "celeba19", lambda n: celeba19.data.apart(faces(n)), FACES, celeba.loglike.evaluate, n_subsets=1
    ),
    "vision": of_vision(scores_all=False),
    "vision, as authors": of_vision(scores_all=True),  # whose loss scores all six views in each term
    "mnist_svhn": of_mixtures("mnist_svhn", PAIRS | {"llik_scaling": 0.0}, pairs, DIGITS, K=30, batch_size=128),
    "cub, images": of_mixtures("images", IMAGES, partial(birds, source="image"), PHOTOGRAPHS, K=5, batch_size=64),
    "cub, features": of_mixtures("features", FEATURES, partial(birds, source="feature"), VECTORS, K=5, batch_size=64),
}


def n_steps(name: str, device: torch.device) -> int:
    """Of a turn."""
    return EXPERIMENTS[name].steps * (1 if device.type == "cpu" else ON_GPU)


def our_turn(name: str, device: torch.device = CPU, precision: str = "fp32", compile: bool = False) -> Turn:
    """Steps on batches out of a split in memory, as `common.training.loop.fit` takes them."""
    experiment = EXPERIMENTS[name]
    devices.select(device.type == "cuda")
    model = devices.prepare(experiment.build(), device, precision, compile)
    objective = experiment.objective(model)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, amsgrad=experiment.amsgrad, fused=True)
    step, meter, n = Step(objective, optimizer), Meter(), experiment.batch_size
    examples = experiment.examples(n_steps(name, device) * n).to(device)
    if device.type == "cuda" and step.capturable(examples):
        step = CapturedStep(step)

    def turn() -> None:
        for index in torch.randperm(len(examples), device=device).split(n):
            meter.add(step(examples, index, n, experiment.beta), n)
        meter.check("in the benchmark")

    return turn


def plain_turn(name: str, device: torch.device = CPU) -> Turn:
    """The originals' steps on a batch that is at hand."""
    experiment = EXPERIMENTS[name]
    return _repeated(name, experiment.plain(experiment.build().to(device)), device)


def package_turn(name: str, device: torch.device = CPU) -> Turn:
    """Steps of the package multivae on a batch that is at hand."""
    from benchmarks import package  # an extra

    experiment = EXPERIMENTS[name]
    objective = experiment.objective(experiment.build().to(device))
    return _repeated(name, package.training_step(objective, experiment.beta), device)


def _repeated(name: str, step: Callable[[Batch], None], device: torch.device) -> Turn:
    batch = EXPERIMENTS[name].examples(EXPERIMENTS[name].batch_size).to(device)[:]

    def turn() -> None:
        for _ in range(n_steps(name, device)):
            step(batch)

    return turn


def loaded_turn(name: str, device: torch.device = CPU) -> Turn:
    """The originals' steps on batches of their loader."""
    experiment = EXPERIMENTS[name]
    step = experiment.plain(experiment.build().to(device))
    loader = experiment.files.loader(experiment.examples(n_steps(name, device) * experiment.batch_size))

    def turn() -> None:
        for batch in loader(experiment.batch_size):
            step(Batch({key: x.to(device) for key, x in batch.modalities.items()}))

    return turn
