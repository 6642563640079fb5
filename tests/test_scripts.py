"""Every script through its command line, and the commands of every README."""

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

import celeba.classifier
import celeba.train
import cub.feature_network
import cub.train
import mnist_svhn.classifiers
import mnist_svhn.train
import multimnist.data
import vhe.train
from common import checkpoints, reports, runs
from common.errors import InputError
from mnist import loglike, parts, sample
from mnist import train as mnist_train
from mnist.data import load
from tests.test_celeba_data import write_celeba
from tests.test_cub_data import write_cub, write_image
from tests.test_cub_features import small_resnet
from tests.test_data import IMAGES, write_mnist
from tests.test_parity import authors_file
from tests.test_vhe_data import write_omniglot

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    f"{folder}/{script}.py"
    for folder in ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision")
    for script in ("train", "sample", "loglike")
} | {
    "celeba/analyse.py",
    "celeba19/analyse.py",
    "vision/analyse.py",
    "vision/setup.py",
    "multimnist/generate.py",
    "mnist/analyse.py",
    "mnist/gradients.py",
    "mnist/halves.py",
    "mnist/pixels.py",
    "mnist/compare.py",
    "fashionmnist/analyse.py",
    "mnist_svhn/make_idx.py",
    "mnist_svhn/train.py",
    "mnist_svhn/sample.py",
    "mnist_svhn/loglike.py",
    "mnist_svhn/analyse.py",
    "cub/features.py",
    "cub/train.py",
    "cub/sample.py",
    "cub/loglike.py",
    "cub/analyse.py",
    "benchmarks/__main__.py",
    "benchmarks/faces.py",
    "benchmarks/growth.py",
    "benchmarks/pixels.py",
    "benchmarks/scaling.py",
    "benchmarks/vhe.py",
    "vhe/train.py",
    "vhe/sample.py",
    "vhe/loglike.py",
    "vhe/classify.py",
    "vhe/example_czx.py",
    "vhe/example_hierarchical.py",
    "vhe/example_factorial.py",
}
READMES = [p.relative_to(ROOT).as_posix() for p in (ROOT / "README.md", *ROOT.glob("[!.]*/README.md"))]


def test_every_script_is_listed_here():
    sources = [p for p in ROOT.glob("*/*.py") if p.parent.name not in ("tests", ".venv")]
    assert {p.relative_to(ROOT).as_posix() for p in sources if "__main__" in p.read_text()} == SCRIPTS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the demo data, trained from its folder as a user would, in a process of its own."""
    save_dir = tmp_path_factory.mktemp("trained")
    options = ["--demo", "--epochs", "2", "--annealing-epochs", "1", "--n-latents", "8", "--lambda_text", "50."]
    command = [sys.executable, "train.py", *options, "--cuda", "--save-dir", str(save_dir)]
    result = subprocess.run(command, cwd=ROOT / "mnist", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if not torch.cuda.is_available():
        assert "warning: no GPU is available" in result.stderr
    return save_dir


def call(script, *args):
    """A script's main on parsed arguments, in this process."""
    return script.main(tyro.cli(script.Config, args=[str(arg) for arg in args]))


def test_modules_run_from_the_root_and_errors_take_one_line(tmp_path):
    command = [sys.executable, "-m", "mnist.train", "--data-dir", str(tmp_path), "--save-dir", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}/MNIST/raw/train-images-idx3-ubyte.gz is missing")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", [None, 0, 7])
@pytest.mark.parametrize("image", [None, "0", "4", "file"])
def test_sampling_given_anything(trained, tmp_path, text, image):
    args = [trained, "--demo", "--n-samples", 10, "--out-dir", tmp_path / "out"]
    if text is not None:
        args += ["--condition-on-text", text]
    if image == "file":
        Image.new("RGB", (40, 56), "white").save(tmp_path / "given.jpg")
        image = tmp_path / "given.jpg"
    if image is not None:
        args += ["--condition-on-image", image]
    call(sample, *args)
    labels = (tmp_path / "out" / "sample_text.txt").read_text().split()
    assert len(labels) == 10 and set(labels) <= set("0123456789")
    with Image.open(tmp_path / "out" / "sample_image.png") as picture:
        assert picture.width > 300


def test_label_zero_is_a_condition_like_any_other(trained, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(sample, "samples", lambda model, inputs, *_: seen.append(inputs) or ["0"])
    for text, image in ((0, 0), (5, 5)):
        call(
            sample, trained, "--demo", "--condition-on-text", text, "--condition-on-image", image, "--out-dir", tmp_path
        )
        (tmp_path / "sample_text.txt").unlink()
    digits = load("test", "", demo=True)
    for inputs, label in zip(seen, (0, 5), strict=True):
        assert inputs["text"].tolist() == [label]
        same = (digits[:].modalities["image"] == inputs["image"]).flatten(1).all(dim=1)
        assert digits.modalities["text"][same].tolist() == [label], "an image of that class, between 0 and 1"


def test_reconstructions(trained, tmp_path):
    call(sample, trained, "--demo", "--reconstruct", "--n-samples", 5, "--out-dir", tmp_path)
    assert len((tmp_path / "sample_text.txt").read_text().split()) == 5


def test_samples_lie_beside_the_model_by_default(trained):
    call(sample, trained / "model_best.pth.tar", "--n-samples", 1)
    assert (trained / "samples" / "sample_image.png").exists()


def test_loglike_table_and_json(trained, tmp_path, capsys):
    estimates = call(loglike, trained, "--demo", "--limit", 20, "--n-samples", 50, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["estimates"] == estimates
    assert {k: v for k, v in content.items() if k not in ("estimates", "checkpoint")} == {
        "experiment": "mnist",
        "split": "test",
        "n_examples": 20,
        "n_samples": 50,
        "seed": 0,
    }
    out = capsys.readouterr().out
    for name in ("image", "text", "image,text", "image|text", "text|image"):
        assert set(estimates[f"log p({name})"]) == {"mean", "stderr"}
        cell = reports.in_table(f"log p({name})")
        assert f"| {cell} | {estimates[f'log p({name})']['mean']:.3f} |" in out
    assert 1 <= estimates["effective samples, image"]["mean"] <= 50
    assert call(loglike, trained, "--demo", "--limit", 20, "--iwae-samples", 50) == estimates, "same seed, same figures"


def test_the_authors_checkpoint_works_wherever_ours_does(tmp_path):
    path = authors_file(tmp_path / "model_best.pth.tar")
    call(sample, path, "--demo", "--condition-on-text", 3, "--n-samples", 2)
    assert call(loglike, path, "--demo", "--limit", 3, "--n-samples", 5)["log p(image)"]["mean"] < -300


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (sample, ["--condition-on-text", 12], "--condition-on-text: a class is a number from 0 to 9, not '12'"),
        (sample, ["--condition-on-text", -1], "--condition-on-text: a class is a number from 0 to 9, not '-1'"),
        (
            sample,
            ["--condition-on-image", 10],
            "--condition-on-image 10: there is no such file, and a class is a number from 0 to 9, not '10'",
        ),
        (
            sample,
            ["--condition-on-image", "no.png"],
            "--condition-on-image no.png: there is no such file, and a class is",
        ),
        (sample, ["--n-samples", 0], "--n-samples must be positive, not 0"),
        (sample, ["--reconstruct", "--condition-on-text", 1], "--reconstruct takes no condition"),
        (sample, ["--data-dir", "nowhere", "--condition-on-image", 1], "is missing"),
        (loglike, ["--n-samples", 0], "--n-samples must be positive, not 0"),
        (loglike, ["--limit", 0], "--limit must be positive, not 0"),
        (loglike, ["--json", "nowhere/out.json"], "--json nowhere/out.json: there is no such folder"),
        (loglike, ["--data-dir", "nowhere"], "is missing"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, capsys, script, args, message):
    data = [] if "--data-dir" in args else ["--demo"]
    with pytest.raises(SystemExit) as exit_:
        runs.command_line(script.main, script.Config, "", [str(arg) for arg in [trained, *data, *args]])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_damaged_pictures_are_named(trained, tmp_path):
    (tmp_path / "given.ppm").write_bytes(b"P6 40 x")
    with pytest.raises(InputError, match=r"given.ppm is no readable image"):
        call(sample, trained, "--condition-on-image", tmp_path / "given.ppm")


def python_of_the_readme():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_python_of_the_readme(trained):
    code, _ = python_of_the_readme()
    batch = load("test", "", demo=True, limit=5)[:]
    names = {"x": batch.modalities["image"], "y": batch.modalities["text"]}
    exec(code.replace("mnist/trained_models", str(trained)), names)
    assert names["label"].shape == names["log_p"].shape == (5,)
    assert (names["log_p"] < -100).all()


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
    runs.command_line(pairs.main, pairs.Config, pairs.__doc__, args)
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
    monkeypatch.setattr(mnist_svhn.classifiers, "STEPS", 2)
    for folder, (script, *args) in readme_commands(readme):
        if folder == Path():  # reproduce.py, which calls scripts in processes: tests/test_reproduce.py
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
        runs.command_line(module.main, config, "", args)


def small(fit):
    def fit_one_epoch(model, objective, train, valid, config, *args, **options):
        config.epochs = 1
        fit(model, objective, train, valid, config, *args, **options)

    return fit_one_epoch
