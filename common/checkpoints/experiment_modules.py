"""The modules that build the experiments' models, by a fixed list of names; none of them is a script."""

from importlib import import_module
from types import ModuleType

MVAE_EXPERIMENTS = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19")
OTHERS = ("mnist_svhn", "polymnist", "cub", "vhe", "vision", "translation")
EXPERIMENTS = {name: f"{name}.model" for name in (*MVAE_EXPERIMENTS, *OTHERS)}
EXPERIMENTS |= {"halves": "mnist.parts.model", "pixels": "mnist.parts.model"}


def module_of(experiment: str) -> ModuleType:
    """The module of an experiment, a key of EXPERIMENTS."""
    return import_module(EXPERIMENTS[experiment])
