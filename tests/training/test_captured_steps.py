"""The captured step on a CPU, for the default of every folder and model: what a CUDA graph cannot hold fails here."""

from functools import cache
from importlib import import_module
from typing import Literal, get_args, get_origin, get_type_hints

from common.data.splits import unpair
from common.execution import devices
from tests.helpers.captured import DEVICE, capture, captured
from training.experiment import experiment_in
from training.steps import Step

import pytest
import torch

FOLDERS = {  # options that make a folder's demo small
    "mnist": {"limit": 100},
    "fashionmnist": {"limit": 60},
    "multimnist": {"limit": 60},
    "celeba": {"limit": 60},
    "celeba19": {"limit": 60},
    "vision": {"limit": 60},
    "mnist_svhn": {"limit": 60, "matchings": 1},
    "cub": {"limit": 60},
    "polymnist": {"limit": 60},
    "translation": {"limit": 100},
    "mfeat": {"limit": 60},
}
FAST = (
    "mnist mvae",
    "mnist mopoe",
    "mnist jmvae",
    "celeba19 poe",
    "mnist_svhn moe",
    "mfeat mvtcae",
    "polymnist mmvae+",
    "cub features",
)
ALIKE = {  # folders whose other models are mnist's, or MMVAE's names of others
    "fashionmnist": ("mvae",),
    "multimnist": ("mvae", "mopoe", "jmvae"),
    "cub": ("images", "features"),
}
LEFT_OUT = ("vision mopoe",)  # 63 components, each with batch norm of its own: a minute
WITH_PRIVATE = ("dmvae", "mmvae+", "cmvae", "idmvae")


def choices(hint):
    """The names of an option's type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((names for part in get_args(hint) if (names := choices(part))), ())


def cases():
    """A folder, and the option that names its models."""
    for folder in FOLDERS:
        hints = get_type_hints(import_module(f"{folder}.train").Config)
        axis = "model" if "model" in hints else "fusion"
        for name in choices(hints[axis]):
            if f"{folder} {name}" in LEFT_OUT or (folder in ALIKE and name not in ALIKE[folder]):
                continue
            marks = () if f"{folder} {name}" in FAST else pytest.mark.slow
            yield pytest.param(folder, {axis: name}, id=f"{folder} {name}", marks=marks)


@cache
def data(folder):
    """A folder's training examples."""
    script = import_module(f"{folder}.train")
    config = script.Config(demo=True, **FOLDERS[folder])
    return experiment_in(script, config).splits(config)[0]


def small_step(folder, options):
    """The config of a folder's demo with these options, its objective and its examples."""
    script = import_module(f"{folder}.train")
    private = {"n_private": 2} if folder == "polymnist" and options.get("model") in WITH_PRIVATE else {}
    config = script.Config(demo=True, **FOLDERS[folder], **options, **private)
    config.check()
    experiment = experiment_in(script, config)
    # the data of these complete the config, by a vocabulary or by scales
    own = folder in ("cub", "mfeat") or options.keys() & {"missing", "n_modalities"}
    train = experiment.splits(config)[0] if own else data(folder)
    model = devices.prepare(experiment.build(config), torch.device("cpu"), config.precision)
    objective, examples = experiment.objective(config, model), experiment.examples(config, train, model)
    if config.paired_fraction < 1:
        examples = unpair(examples, config.paired_fraction, config.seed, objective.unimodal)
    return config, objective, examples


@pytest.mark.parametrize(("folder", "options"), [*cases()])
def test_the_step_of_every_model_can_be_captured(folder, options, monkeypatch):
    config, objective, examples = small_step(folder, options)
    assert Step(objective, None).capturable(examples)
    capture(objective, examples, monkeypatch, max_grad_norm=config.max_grad_norm)


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("mnist", {"obj": "ar"}),
        ("mnist", {"max_grad_norm": 1.0}),
        ("mnist", {"paired_fraction": 0.5}),
        ("mnist", {"paired_fraction": 0.5, "model": "mopoe"}),
        ("mnist", {"paired_fraction": 0.5, "model": "bivcca"}),
        ("mnist_svhn", {"obj": "iwae", "K": 3, "looser": False}),
        ("mnist_svhn", {"obj": "elbo"}),
        ("polymnist", {"missing": 0.3, "model": "mopoe", "n_modalities": 3}),
        ("polymnist", {"missing": 0.3, "model": "mvae", "n_modalities": 3, "approx_m": 1}),
        pytest.param("polymnist", {"missing": 0.3, "model": "code", "n_modalities": 3}, marks=pytest.mark.slow),
        pytest.param("vision", {"approx_m": 1}, marks=pytest.mark.slow),
        pytest.param("celeba19", {"approx_m": 0}, marks=pytest.mark.slow),
    ],
)
def test_the_step_with_other_options_can_be_captured(folder, options, monkeypatch):
    test_the_step_of_every_model_can_be_captured(folder, options, monkeypatch)


def test_batch_norm_of_absent_modalities_is_not_captured():
    objective, examples = small_step("multimnist", {"paired_fraction": 0.5})[1:]
    assert not Step(objective, None).capturable(examples), "its statistics would count what is absent"


X = torch.ones(4, 2, device=DEVICE)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: X.sum().item(),
        lambda: X.nonzero(),
        lambda: X[X.bool()],
        lambda: X[torch.tensor([0, 1])],
        lambda: X + torch.ones(2),
        lambda: torch.tensor([0.5, 1.0], device=DEVICE),
        lambda: torch.tensor(0.5, device=DEVICE),
        lambda: torch.ones(2).to(DEVICE),
        lambda: X.cpu(),
        lambda: X.multinomial(1),
        lambda: X.unique(),
    ],
)
def test_what_a_graph_cannot_hold_fails(operation):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), captured():
        operation()


def test_a_graph_that_outlives_its_step_fails(monkeypatch):
    _, objective, examples = small_step("mnist", {})
    kept, penalised = [], objective.penalised

    def kept_beyond_the_step(*args):
        kept.append(penalised(*args))
        return kept[-1]

    monkeypatch.setattr(objective, "penalised", kept_beyond_the_step)
    with pytest.raises(AssertionError, match="the graph of 27 of 27 parameters outlives the step"):
        capture(objective, examples, monkeypatch)
