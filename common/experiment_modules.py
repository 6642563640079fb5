"""The module that builds each experiment's model, by a fixed list of names; never a script, which runs as __main__."""

from importlib import import_module
from types import ModuleType

MVAE_EXPERIMENTS = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19")
EXPERIMENTS = {
    name: f"{name}.model" for name in (*MVAE_EXPERIMENTS, "mnist_svhn", "cub", "vhe", "vision", "translation")
}
EXPERIMENTS |= {"halves": "mnist.parts.model", "pixels": "mnist.parts.model"}


def module_of(experiment: str) -> ModuleType:
    """The module of an experiment, a key of EXPERIMENTS."""
    return import_module(EXPERIMENTS[experiment])
