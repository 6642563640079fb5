"""--resume, --pre-trained, --settings and --demo: where the defaults come from."""

import importlib
import json
import re
import sys
from pathlib import Path

import celeba.train
import celeba19.train
import cub.train
import fashionmnist.train
import mnist_svhn.train
import multimnist.train
import polymnist.train
import translation.train
import vhe.train
import vision.train
from common.progress import print_once
from cub import features
from mnist import train as mnist_train
from tests.helpers.runs import SMALL, config, metrics
from tests.helpers.scripts import run_script
from tools.reproduction.plans import TABLES
from training.command_line import parse

import pytest


def call(script, *args):
    run_script(script, list(map(str, args)))


def parsed(script, *args):
    """The config that a script's main gets."""
    seen = []
    run_script(script, args, seen.append)
    return seen[0]


OPTIONS = {"lr": 2e-3, "seed": 3, "model": "mopoe", "K": 2, "looser": False, "obj": "iwae", "limit": 100}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    mnist_train.main(config(folder / "named", **OPTIONS))
    return folder / "named"


@pytest.mark.slow
def test_a_resumed_run_keeps_its_options(old, tmp_path, capsys):
    mnist_train.main(config(tmp_path, **OPTIONS | {"epochs": 4}))
    call(mnist_train, "--save-dir", tmp_path, "--resume", "--epochs", SMALL["epochs"])
    assert metrics(tmp_path) == metrics(old)


def test_a_demos_run_starts_one_on_files(old):
    real = parsed(mnist_train, "--pre-trained", str(old), "--no-demo", "--data-dir", "x")
    assert (real.demo, real.data_dir, real.lr) == (False, Path("x"), OPTIONS["lr"])


@pytest.mark.slow
def test_more_epochs_of_a_resumed_run_leave_its_annealing(tmp_path):
    assert (mnist_train.Config(epochs=8).annealing_epochs, mnist_train.Config(epochs=1).annealing_epochs) == (3, 1)
    args = "--demo", "--limit", 100, "--n-latents", 4, "--lr-schedule", "constant", "--save-dir", tmp_path, "--epochs"
    call(mnist_train, *args, 3)
    call(mnist_train, *args, 6, "--resume")
    assert [line["beta"] for line in metrics(tmp_path)] == [1.0] * 6
    assert json.loads((tmp_path / "config.json").read_text())["config"]["annealing_epochs"] == 1


# epochs, annealing, batch size, learning rate, latents: the authors' train.py; weight: the commands of their READMEs
PAPER = {
    mnist_train: (500, 200, 100, 1e-3, 64, {"lambda_text": 50}),
    fashionmnist.train: (500, 200, 100, 1e-3, 64, {"lambda_text": 50}),
    multimnist.train: (500, 200, 100, 1e-3, 64, {"lambda_text": 10}),
    celeba.train: (100, 20, 100, 1e-4, 100, {"lambda_attrs": 10}),
    celeba19.train: (100, 20, 100, 1e-4, 100, {"lambda_attrs": 10, "approx_m": 1}),
    vision.train: (100, 20, 50, 1e-4, 250, {"lambda_image": 1, "lambda_mask": 1}),
    mnist_svhn.train: (30, 0, 128, 1e-3, 20, {"K": None, "obj": "dreg"}),  # its objective's default is the paper's 30
    cub.train: (200, 0, 64, 1e-3, 128, {"K": 50, "obj": "dreg"}),
    polymnist.train: (300, 0, 256, 5e-4, 512, {"beta": 2.5}),
}


def test_the_papers_settings_are_one_flag():
    for script in PAPER:
        given = parsed(script, "--settings", "paper")
        *found, more = PAPER[script]
        assert [given.epochs, given.annealing_epochs, given.batch_size, given.lr, given.n_latents] == found, script
        assert {name: getattr(given, name) for name in more} == more and given == script.PAPER


def test_settings_that_change_nothing_are_told(capsys):
    for script in PAPER:
        print_once.cache_clear()
        parsed(script, "--settings", "paper")
        told = "--settings paper changes nothing: the defaults are the authors' settings\n"
        are_defaults = script in (mnist_svhn.train, cub.train, polymnist.train)
        assert capsys.readouterr().err == (told if are_defaults else ""), script


PLANS = [plan for table in TABLES.values() for plan in table.plans]


@pytest.mark.slow
def test_the_defaults_are_the_settings_of_the_results():
    for script in [*list(PAPER)[:6], mnist_svhn.train, cub.train, translation.train]:
        model = {cub.train: "images", mnist_svhn.train: "mmvae", translation.train: "mvae, lambda 5"}
        name = (script.__name__, model.get(script, "mvae"), "train")
        (plan,) = (plan for plan in PLANS if (f"{plan.experiment}.train", plan.model, plan.train) == name)
        epochs, annealing, options = plan.full
        given = parsed(script, *options.split(), "--epochs", epochs, "--annealing-epochs", annealing)
        assert given == parsed(script), script


@pytest.mark.slow
def test_reproduce_trains_demos_with_their_defaults():
    for plan in (plan for plan in PLANS if plan.demo and not plan.train.endswith("supervision")):
        module = importlib.import_module(f"{plan.experiment}.{plan.train.split()[0]}")  # a subcommand may follow
        if not plan.starts_from:
            given = parsed(module, *plan.train.split()[1:], "--demo", *plan.demo.options.split())
            assert (given.epochs, given.annealing_epochs) == (plan.demo.epochs, plan.demo.annealing), plan.name


def test_other_epochs_have_their_own_annealing():
    assert parsed(multimnist.train, "--demo").annealing_epochs == 10
    assert parsed(multimnist.train, "--demo", "--epochs", 5).annealing_epochs == 1
    assert parsed(mnist_train, "--settings", "paper", "--epochs", 40).annealing_epochs == 15
    assert parsed(mnist_train, "--settings", "paper", "--epochs", 80).annealing_epochs == 30
    assert parsed(mnist_train, "--settings", "paper").annealing_epochs == 200


@pytest.mark.slow
def test_the_options_that_settings_stand_for_are_told(capsys):
    """Parsed, the options that --help prints give the same config."""
    for script in [*PAPER, vhe.train, translation.train]:
        named = {name.lower(): getattr(script, name) for name in ("PAPER", "DEMO") if hasattr(script, name)}
        with pytest.raises(SystemExit):
            parse(script.Config, "", ["--help"], **named)
        told = re.findall(r"^(--\S+(?: paper)?) stands for (.*)$", capsys.readouterr().out, re.MULTILINE)
        assert len(told) == len(named)
        for (flag, text), whole in zip(told, named.values(), strict=True):
            options = [] if text == "the defaults" else text.split()
            assert parse(script.Config, "", [*flag.split(), *options], **named) == whole


def test_a_model_of_the_image_alone_takes_over_no_weight_of_the_text(tmp_path):
    paper = parsed(mnist_train, "--settings", "paper", "--model", "vae")
    assert paper.lambda_text == 1 and parsed(mnist_train, "--settings", "paper").lambda_text == 50
    paper.check()
    small = {"demo": True, "limit": 60, "epochs": 1, "n_latents": 2}
    mnist_train.main(mnist_train.Config(settings="paper", model="vae", save_dir=tmp_path / "first", **small))
    parsed(mnist_train, "--pre-trained", tmp_path / "first").check()


def test_the_demos_importance_samples_are_for_its_objective_alone():
    assert parsed(mnist_svhn.train, "--demo").K == 5
    assert parsed(mnist_svhn.train, "--demo", "--model", "mvae").K is None


def test_an_option_of_choices_or_a_path_takes_both():
    for weights, expected in (("train", "train"), ("net.pth", Path("net.pth"))):
        assert parse(features.Config, args=["--weights", weights]).weights == expected


def test_a_script_does_not_run_another_checkouts_code(tmp_path, monkeypatch, capsys):
    """As in a second clone with the first one's .venv."""
    own = tmp_path / "training" / "command_line.py"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "mnist" / "train.py"), raising=False)
    with pytest.raises(SystemExit) as exit_:
        call(mnist_train)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert f"run make setup in {tmp_path} and its .venv/bin/python, or set PYTHONPATH={tmp_path}" in error
    own.unlink()  # a script of another project
    parsed(mnist_train)
