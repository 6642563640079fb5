"""What each experiment compares: our model, objective and step, the originals' step, and random data of the same shape.

Batch sizes and numbers of samples are the papers'; CUB, whose steps would take minutes, has fewer samples.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import NamedTuple

import celeba.loglike
import celeba19.data
import cub.model
import mnist.loglike
import mnist_svhn.model
import vision.loglike
from celeba.attributes import ATTRIBUTES
from common.data import Batch, Examples
from common.execution import devices
from common.execution.cuda_graphs import CapturedStep
from common.model_data import modelled
from common.models import MultimodalVAE
from common.objectives import DregIwaeElbo, MvaeElbo, Objective
from cub.captions import END, PADDING
from reference import mvae
from reports import likelihoods
from tools.benchmarks import plain, plain_mmvae
from tools.benchmarks.loaders import DIGITS, FACES, PHOTOGRAPHS, VECTORS, VIEWS, Files
from tools.benchmarks.race import Turn
from training.loop import Meter
from training.steps import Step
from vision.data import DERIVED

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")
BETA = 0.5  # in MVAE's steps, as in the middle of annealing
GPU_FACTOR = 20  # a turn on a GPU has this many times the steps


class Experiment(NamedTuple):
    """A model of an experiment, and how to train and score it.

    build: returns the model.
    objective: model -> objective.
    plain: model -> the originals' model (`benchmarks.plain`, `benchmarks.plain_mmvae`).
    plain_loss: (that model, a batch's modalities) -> the originals' loss.
    examples: n -> n random examples.
    files: how the originals store them (`benchmarks.loaders`).
    evaluate: (model, examples, n_samples=number) -> the log-likelihoods that loglike.py estimates.
    batch_size: examples a step.
    steps: steps of a turn, which takes some tenths of a second on a CPU.
    warm_up: steps of ours before the first turn. A model that has learnt nothing takes longer: more of its samples have
        importance weights that count.
    amsgrad: Adam's variant.
    plain_evaluate: `evaluate` written as the originals write it; None: they have none.
    """

    build: Callable[[], MultimodalVAE]
    objective: Callable[[MultimodalVAE], Objective]
    plain: Callable[[MultimodalVAE], nn.Module]
    plain_loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    examples: Callable[[int], Examples]
    files: Files
    evaluate: Callable[..., object]
    batch_size: int
    steps: int = 1
    warm_up: int = 0
    amsgrad: bool = False
    plain_evaluate: Callable[[MultimodalVAE, Examples, int], object] | None = None

    @property
    def beta(self) -> float:
        """Weight of the KL in a step."""
        return BETA if self.objective.func is MvaeElbo else 1.0


def digits(n: int, size: int = 28, text: tuple[int, ...] = ()) -> Examples:
    """Images (n, 1, size, size) and texts (n, *text) of digits."""
    return Examples({"image": pixels(n, 1, size), "text": torch.randint(10, (n, *text))})


def for_digits(folder: str, steps: int, *shape: int | tuple[int, ...]) -> Experiment:
    """MVAE of digits and their labels.

    Args:
        folder: the experiment's folder.
        shape: the further arguments of `digits`.
    """
    options = SimpleNamespace(n_latents=64, model="mvae", posterior="gaussian", teacher_forcing=False)
    return Experiment(
        partial(import_module(f"{folder}.model").build, options),
        partial(MvaeElbo, weights=mvae.LAMBDA),
        plain.plain_model,
        partial(mvae.loss, beta=BETA),
        lambda n: digits(n, *shape),
        DIGITS,
        mnist.loglike.evaluate,
        batch_size=100,
        steps=steps,
    )


def faces(n: int) -> Examples:
    """Random images and attributes of n faces."""
    return Examples({"image": pixels(n, 3, 64), "attrs": torch.randint(2, (n, len(ATTRIBUTES))).float()})


def views(n: int) -> Examples:
    """Random images of n faces in six views; two of them are derived from the image."""
    gray = {name: pixels(n, 1, 64) for name in ("gray", "edge", "mask")}
    return Examples({"image": pixels(n, 3, 64), **gray}, derived=DERIVED)


def for_faces(
    folder: str,
    examples: Callable[[int], Examples],
    files: Files,
    evaluate: Callable[..., object],
    n_latents: int = 100,
    batch_size: int = 100,
    n_subsets: int = 0,
    scores_all: bool = False,
) -> Experiment:
    """MVAE of faces and their attributes or views.

    Args:
        n_subsets: random subsets that the objective adds.
        scores_all: see `benchmarks.plain.faces_loss`.
    """
    private = {"n_private": None, "n_clusters": None, "rho": None}
    options = SimpleNamespace(n_latents=n_latents, model="mvae", fusion="poe", posterior="gaussian", **private)
    return Experiment(
        partial(import_module(f"{folder}.model").build, options),
        partial(MvaeElbo, K=n_subsets, generator=torch.Generator().manual_seed(0)),
        plain.plain_model,
        partial(plain.faces_loss, beta=BETA, k=n_subsets, scores_all=scores_all),
        examples,
        files,
        evaluate,
        batch_size,
    )


def pairs(n: int) -> Examples:
    """Random images of n pairs of digits."""
    return Examples({"mnist": pixels(n, 1, 28), "svhn": pixels(n, 3, 32)})


def birds(n: int, source: str) -> Examples:
    """Random images or features of n birds, with captions of 16 words."""
    captions = torch.randint(3, 1590, (n, 32))
    captions[:, 16], captions[:, 17:] = END, PADDING
    return Examples({source: pixels(n, 3, 64) if source == "image" else torch.rand(n, 2048), "caption": captions})


def for_mixtures(
    name: str,
    options: dict[str, object],
    examples: Callable[[int], Examples],
    files: Files,
    K: int,
    batch_size: int,
    warm_up: int = 0,
) -> Experiment:
    """MMVAE under DReG with K samples.

    Args:
        name: "mnist_svhn", or of cub "images" or "features".
        options: of the model.
    """
    module = mnist_svhn.model if name == "mnist_svhn" else cub.model
    return Experiment(
        partial(module.build, SimpleNamespace(**options, learn_prior=True, n_private=None, n_clusters=None, rho=None)),
        partial(DregIwaeElbo, K=K, looser=True),
        plain_mmvae.plain_model,
        partial(plain_mmvae.loss, K=K),
        examples,
        files,
        likelihoods.mmvae_estimates,
        batch_size,
        warm_up=warm_up,
        amsgrad=True,
        plain_evaluate=plain_mmvae.evaluate,
    )


def pixels(n: int, channels: int, size: int) -> Tensor:
    """Random images (n, channels, size, size), uint8."""
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8)


for_vision = partial(for_faces, "vision", views, VIEWS, vision.loglike.evaluate, n_latents=250, batch_size=50)
PAIRS = {"model": "mmvae", "n_latents": 20, "num_hidden_layers": 1, "prior_and_posterior": "laplace"}
BIRDS = {"fusion": "moe", "vocabulary": ["word"] * 1590}
IMAGES = BIRDS | {"model": "images", "n_latents": 128, "posterior": "laplace-normal", "llik_scaling": 0.0}
FEATURES = BIRDS | {"model": "features", "n_latents": 64, "posterior": "softplus-normal", "llik_scaling": 0.002}
EXPERIMENTS = {
    "mnist": for_digits("mnist", 5),
    "fashionmnist": for_digits("fashionmnist", 5),
    "multimnist": for_digits("multimnist", 3, 50, (4,)),
    "celeba": for_faces("celeba", faces, FACES, celeba.loglike.evaluate),
    "celeba19": for_faces(
        "celeba19", lambda n: celeba19.data.apart(faces(n)), FACES, celeba.loglike.evaluate, n_subsets=1
    ),
    "vision": for_vision(scores_all=False),
    "vision, as authors": for_vision(scores_all=True),  # the authors' loss scores all six views in each term
    "mnist_svhn": for_mixtures(
        "mnist_svhn", PAIRS | {"llik_scaling": 0.0}, pairs, DIGITS, K=30, batch_size=128, warm_up=60
    ),
    "cub, images": for_mixtures("images", IMAGES, partial(birds, source="image"), PHOTOGRAPHS, K=5, batch_size=64),
    "cub, features": for_mixtures("features", FEATURES, partial(birds, source="feature"), VECTORS, K=5, batch_size=64),
}


def n_steps(name: str, device: torch.device) -> int:
    """Steps of a turn."""
    return EXPERIMENTS[name].steps * (1 if device.type == "cpu" else GPU_FACTOR)


def our_turn(name: str, device: torch.device = CPU, precision: str = "fp32") -> Turn:
    """A turn of our steps, on batches out of a split in memory as in `training.loop.Trainer`."""
    experiment = EXPERIMENTS[name]
    devices.select(device.type == "cuda")
    model = devices.prepare(experiment.build(), device, precision)
    objective = experiment.objective(model)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, amsgrad=experiment.amsgrad, fused=True)
    step, meter, n = Step(objective, optimizer), Meter(), experiment.batch_size
    examples = modelled(None, experiment.examples(n_steps(name, device) * n), model).to(device)
    if device.type == "cuda" and step.capturable(examples):
        step = CapturedStep(step, optimizer)

    def turn() -> None:
        for index in torch.randperm(len(examples), device=device).split(n):
            bound, norm = step(examples, index, n, experiment.beta)
            meter.add(bound, n, norm)
        meter.means("in the benchmark")

    for _ in range(experiment.warm_up // n_steps(name, device)):
        turn()
    return turn


def plain_turn(name: str, device: torch.device = CPU) -> Turn:
    """A turn of the originals' steps on one batch in memory."""
    return _repeated(name, plain_step(EXPERIMENTS[name], device), device)


def plain_step(experiment: Experiment, device: torch.device) -> Callable[[Batch], None]:
    """A training step as the originals write it."""
    model = experiment.plain(experiment.build().to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=experiment.amsgrad, foreach=False)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = experiment.plain_loss(model, batch.modalities)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def package_turn(name: str, device: torch.device = CPU) -> Turn:
    """A turn of the package multivae's steps on one batch in memory."""
    from tools.benchmarks import package  # needs the extra [bench]

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
    """A turn of the originals' steps on batches of their loader."""
    experiment = EXPERIMENTS[name]
    step = plain_step(experiment, device)
    loader = experiment.files.loader(experiment.examples(n_steps(name, device) * experiment.batch_size))

    def turn() -> None:
        for batch in loader(experiment.batch_size):
            step(Batch({key: x.to(device) for key, x in batch.modalities.items()}))

    return turn
