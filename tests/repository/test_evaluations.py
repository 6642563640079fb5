"""A new evaluation is one function: every loglike.py reports it, in its table and its JSON."""

import json
from importlib import import_module

from common.io import save_tensors
from reports import metrics
from tests.helpers.scripts import call
from training.options import as_json

import pytest
import torch
import tyro

PLAIN = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision", "polymnist", "translation", "mfeat")
FOLDERS = {
    **dict.fromkeys(PLAIN, ()),
    "mnist_svhn": ("--K", 2),
    "cub": ("--K", 2),
    "vhe": ("--k-shot", 2),
}
FEW = ("--demo", "--limit", 4, "--n-samples", 2)


def above_mean(model, batch):
    """Share of the values of pictures and texts above the mean of their example, {name: (B,)}."""
    values = [x.flatten(1).float() for x in batch.modalities.values() if x.dim() > 1]
    shares = [(x > x.mean(dim=1, keepdim=True)).float().mean(dim=1) for x in values]
    return {"above mean|all": torch.stack(shares).mean(dim=0)} if shares else {}


def untrained(experiment, config, path):
    """Save the model that an experiment builds."""
    if experiment.load_train:
        experiment.load_train(config)  # completes the config
    checkpoint = {"experiment": experiment.name, "config": as_json(config)}
    save_tensors(path, checkpoint | {"state_dict": experiment.build(config).state_dict()})
    return path


def in_every_folder(*quick):
    """Parametrise a test by the folder, and leave all but the quick ones to the slow tests."""
    names = [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in FOLDERS]
    return pytest.mark.parametrize("folder", names)


def untrained_in(folder, tmp_path):
    """A small model of a folder's demo, and its loglike.py."""
    train, loglike = (import_module(f"{folder}.{script}") for script in ("train", "loglike"))
    config = tyro.cli(
        train.Config, args=[str(arg) for arg in ("--demo", "--limit", 12, "--n-latents", 4, *FOLDERS[folder])]
    )
    takes_config = folder in ("mnist_svhn", "cub")
    experiment = train.experiment(config) if takes_config else train.experiment()
    return untrained(experiment, config, tmp_path / "model.pt"), loglike


@in_every_folder("mnist")
def test_an_evaluation_is_reported_in_every_folder(folder, tmp_path, monkeypatch, capsys):
    path, loglike = untrained_in(folder, tmp_path)
    usual = call(loglike, path, *FEW)
    monkeypatch.setattr(metrics, "EVALUATIONS", [above_mean])
    capsys.readouterr()
    _check(call(loglike, path, *FEW, "--json", tmp_path / "out.json"), usual, tmp_path, capsys)


@in_every_folder("mnist", "translation")
def test_the_seed_decides_every_estimate_by_samples(folder, tmp_path):
    path, loglike = untrained_in(folder, tmp_path)
    first, again, other = (call(loglike, path, *FEW, "--seed", seed) for seed in (3, 3, 4))
    assert again == first
    assert all(other[name]["mean"] != x["mean"] for name, x in first.items() if name.startswith("log p("))


def _check(estimates, usual, folder, capsys):
    assert set(estimates) - set(usual) == {"above mean|all"} and set(usual) < set(estimates)
    figure = estimates["above mean|all"]
    assert 0 < figure["mean"] < 1 and figure["stderr"] > 0
    assert json.loads((folder / "out.json").read_text())["estimates"] == estimates
    assert rf"| above mean\|all | {figure['mean']:.3f} | {figure['stderr']:.3f} |" in capsys.readouterr().out
