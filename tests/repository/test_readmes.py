"""The commands and the Python of every README."""

import importlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import celeba.classifier
import celeba.train
import cub.feature_network
import cub.train
import mnist_svhn.classifier
import mnist_svhn.train
import multimnist.data
import vhe.train
from common import checkpoints
from common.training import run_from_command_line
from mnist import train as mnist_train
from mnist.parts import commands as parts
from tests.helpers.celeba_files import write_celeba
from tests.helpers.cub_files import write_cub, write_image
from tests.helpers.mnist_files import IMAGES, write_mnist
from tests.helpers.omniglot_files import write_omniglot
from tests.helpers.resnet import small_resnet
from tests.helpers.scripts import ROOT, python_of_the_readme

READMES = [p.relative_to(ROOT).as_posix() for p in (ROOT / "README.md", *ROOT.glob("[!.]*/README.md"))]


def test_a_folder_of_pairs_is_an_experiment(tmp_path, monkeypatch):
    _, code = python_of_the_readme()
    assert code.count("\n") < 60
    (tmp_path / "pairs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(12):
            write_image(tmp_path / name / f"{i}.png", i)
    pairs = importlib.import_module("pairs")
    args = f"--data-dir {tmp_path} --save-dir {tmp_path / 'run'} --epochs 1 --n-latents 4 --batch-size 5".split()
    run_from_command_line(pairs.main, pairs.Config, pairs.__doc__, args)
    assert (tmp_path / "run" / "samples" / "from_a.png").exists()

    monkeypatch.setitem(checkpoints.EXPERIMENTS, "pairs", "pairs")
    model = checkpoints.load_model(tmp_path / "run")
    decoded = model.reconstruct({"a": pairs.load(tmp_path)[:].modalities["a"]})
    assert decoded["b"].shape == (12, 3, 64, 64)


def readme_commands(readme):
    """(folder, command) of each line of a README's bash blocks that starts with python, where `cd` is followed."""
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL):
        folder = Path(readme).parent
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["cd"]:
                folder = Path(words[1]) if Path(readme).parent == Path() else Path(readme).parent.parent / words[1]
            elif words[:1] == ["python"] and words[1] != "-m":
                yield folder, words[1:]


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES)
def test_commands_of_the_readmes_run(readme, tmp_path, monkeypatch, capsys, request):
    """Each as written, on small data: what a reader types must parse, and do its work on the run before it."""
    if readme in ("mnist/README.md", "celeba19/README.md"):  # of few and of many terms
        request.getfixturevalue("finely")
    write_celeba(tmp_path / "data")
    write_cub(tmp_path / "data")
    write_image(tmp_path / "bird.jpg", 0)
    twenty = {"images_background": {"Greek": (20, 20), "Latin": (20, 20)}, "images_evaluation": {"Tengwar": (20, 20)}}
    write_omniglot(tmp_path / "data", sets=twenty, first=961)  # as Omniglot's test images begin with 0965
    digits = np.pad(IMAGES[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4)))  # they have margins
    write_mnist(tmp_path / "data", images=np.tile(digits, (5, 1, 1)), labels=np.arange(60) % 10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multimnist.data, "N", {"train": 30, "test": 30})
    monkeypatch.setattr(mnist_train, "fit", small(mnist_train.fit))
    monkeypatch.setattr(mnist_svhn.train, "fit", small(mnist_svhn.train.fit))
    monkeypatch.setattr(cub.train, "fit", small(cub.train.fit))
    monkeypatch.setattr(cub.feature_network, "resnet101", small_resnet)
    monkeypatch.setattr(parts, "fit", small(parts.fit))
    monkeypatch.setattr(vhe.train, "fit", small(vhe.train.fit))
    monkeypatch.setattr(celeba.train, "fit", small(celeba.train.fit))
    monkeypatch.setattr(celeba.classifier, "STEPS", 2)
    monkeypatch.setattr(mnist_svhn.classifier, "STEPS", 2)
    for folder, (script, *args) in readme_commands(readme):
        if folder == Path():  # reproduce.py, which calls scripts in processes: tests/reproduction/test_reproduce.py
            continue
        module = importlib.import_module(f"{folder.as_posix().replace('/', '.')}.{script.removesuffix('.py')}")
        for option in {"--data-dir", "--mnist-dir"} & set(args):
            args[args.index(option) + 1] = "data"
        monkeypatch.setattr(sys, "argv", [os.fspath(ROOT / folder / script), *args])
        if script == "setup.py" and args[0] == "mask":  # dlib and its landmarks are a hundred megabytes
            shutil.copytree("data/grayscale", args[2])
            continue
        if (folder.name, script) in {(name, "analyse.py") for name in ("celeba", "celeba19", "vision")}:
            args += ["--limit", "12", *([] if folder.name == "vision" else ["--n-samples", "5"])]
        if folder.name == "cub":
            tiny = {"train.py": "--K 1", "features.py": "--size 32 --epochs 1 --batch-size 4"}
            args += (tiny | {"analyse.py": "--n-samples 5 --components 2 --no-umap"}).get(script, "").split()
        if script.startswith("example_"):
            args += ["--epochs", "1"]
        if script == "classify.py":
            args += ["--n-way", "2", "--episodes", "2", "--n-samples", "1"]
        if script == "train.py" or args[:1] == ["train"]:
            args += ["--limit", "12"]
        if script == "loglike.py" or args[:1] == ["loglike"]:
            args += ["--limit", "5", "--n-samples", "2" if folder.name == "vhe" else "20"]
        if script == "compare.py":
            args += ["--variants", "hidden=8", "--seeds", "0", "--n-test", "5", "--n-samples", "5", "--jobs", "1"]
        if "weak-supervision" in args:
            args += ["--limit", "100", "--fractions", "0.5", "--seeds", "0", "--classifier-steps", "2", "--jobs", "1"]
        config = module.Command if hasattr(module, "Command") else module.Config
        run_from_command_line(module.main, config, "", args)


def small(fit):
    def fit_one_epoch(model, objective, train, valid, config, *args, **options):
        config.epochs = 1
        fit(model, objective, train, valid, config, *args, **options)

    return fit_one_epoch
