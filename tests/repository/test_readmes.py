"""The commands and the Python of every README."""

import importlib
import inspect
import itertools
import math
import os
import pkgutil
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import celeba.classifier
import celeba.train
import cub.classifier
import cub.demo
import cub.feature_network
import mnist_svhn.classifier
import multimnist.data
import multimnist.train
import polymnist.train
from common import checkpoints
from common.data import Examples
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GroupedLikelihood
from common.models import MVAE, choices
from common.models.fusions import FUSIONS
from common.models.objectives import form_of, with_default
from mnist import train as mnist_train
from mnist.demo import scanned_digits
from reports import classifiers
from reports.analysis import parameter_counts
from tests.helpers import what_exists
from tests.helpers.celeba_files import write_celeba
from tests.helpers.cub_files import write_cub, write_image
from tests.helpers.mfeat_files import write_mfeat
from tests.helpers.mnist_files import IMAGES, write_mnist
from tests.helpers.omniglot_files import write_omniglot
from tests.helpers.resnet import small_resnet
from tests.helpers.scripts import ROOT, python_of, run_script
from training import Trainer

import numpy as np
import pytest
import torch
from torch import nn

READMES = [p.relative_to(ROOT).as_posix() for p in (ROOT / "README.md", *ROOT.glob("[!.]*/README.md"))]
PAGES = [p.relative_to(ROOT).as_posix() for p in (*ROOT.glob("docs/*.md"), *ROOT.glob("results/measurements/*.md"))]
TEXTS = [*READMES, *PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]
LARGEST = {"README.md": 12_000, "docs/speed.md": 8_000, "docs/reliability.md": 4_000}  # bytes; 9,000 of a folder's
# folders of data and runs, not of the repository
DATA = [
    "build/docs/",
    "data/",
    "demo/",
    "release/",
    "samples/",
    "test/",
    "img_align_celeba/",
    "images/",
    "data/images/",
]


@pytest.mark.slow
@pytest.mark.base
def test_the_first_example_runs_verbatim_after_make_demo(tmp_path, monkeypatch, capsys):
    code, _ = python_of("README.md")
    assert code.count("\n") < 15
    train = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "mnist/train.py" in line)
    args = shlex.split(train.replace("$(DEMO)", "demo"))[2:]
    monkeypatch.chdir(tmp_path)
    run_script(mnist_train, [*args, "--epochs", "1", "--n-latents", "4"])
    names = {}
    exec(code, names)
    assert names["p"]["text"].mode.shape == names["log_p"].shape == (100,)
    assert (names["log_p"] < -100).all() and 0 <= names["accuracy"] <= 1
    assert "% of the labels inferred, log p(image) = -" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.base
def test_the_example_of_tables_fills_them_and_tells_tumours(tmp_path, monkeypatch, capsys):
    _, code = python_of("README.md")
    assert code.count("\n") < 21
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["z"].shape == (114, 16) and all(x.notna().all(axis=None) for x in names["whole"].values())
    assert (tmp_path / "report" / "criticism.html").exists() and names["report"]["chance"]["benign"] < 0.75
    assert re.search(r"(8[5-9]|9\d)% of the tumours told from two tables", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.base
def test_the_example_of_ones_own_networks_fills_what_is_missing(tmp_path, monkeypatch, capsys):
    code, *_ = python_of("docs/own_data.md")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "own"}
    exec(code, names)
    assert names["filled"].shape == (1500, 28) and names["error"] < 0.75 * names["spread"]
    assert "error of the missing values 0." in capsys.readouterr().out


@pytest.mark.slow
def test_the_snippets_on_ones_own_data_run(tmp_path, monkeypatch):
    """Judges of untrained networks, so that it takes seconds."""
    _, likelihoods, pairs, coherence, latents = python_of("docs/own_data.md")
    assert "run_from_command_line" in pairs
    monkeypatch.chdir(tmp_path)
    digits = scanned_digits("test").modalities
    label = digits["text"].index_fill(0, torch.tensor(5), -1)  # an example lacks it
    examples = Examples({"image": digits["image"], "label": label})
    head = nn.Sequential(nn.Linear(784, 20), SplitLinearLayer(20, (4, 4)))
    encoder = {"image": nn.Sequential(nn.Flatten(), head), "label": nn.Sequential(nn.Embedding(10, 784), head)}
    decoder = {"image": nn.Sequential(nn.Linear(4, 784), nn.Unflatten(1, (1, 28, 28))), "label": nn.Linear(4, 10)}
    likelihood = GroupedLikelihood(image=BernoulliLikelihood(3), label=CategoricalLikelihood())
    model = MVAE(encoder, decoder, likelihood, latent_dim=4)
    labels = digits["text"][:, None]
    names = {"model": model, "train": examples, "test": examples, "train_labels": labels, "test_labels": labels}
    for code in (likelihoods, coherence.replace("1000, None", "5, None"), latents):
        exec(code, names)
    assert names["log_p"].shape == (297,) and len(names["right"]) == 4 and (tmp_path / "map.png").exists()


def test_pages_are_short():
    for page in ("README.md", *PAGES, *READMES):
        most = LARGEST.get(page, 9_000 if page in READMES and "results" not in page else math.inf)
        size = (ROOT / page).stat().st_size
        assert size <= most, f"{page} has {size} bytes of {most}"


def test_every_model_has_its_section_and_its_equations_on_the_page():
    """The objective's equation is in the section, or in that of the model that it links to."""
    _, _, table, *sections = (ROOT / "docs" / "models.md").read_text().split("\n## ")
    by_name = dict(zip(choices.MODELS, sections, strict=True))
    for name, model in choices.MODELS.items():
        text = by_name[name]
        assert f"\n| `{name}` |" in table and text.startswith(f"{name}\n") and "$$" in text
        obj = with_default(model)[0]
        form = form_of(obj, FUSIONS[model.fusion].is_mixture)
        assert f"`--obj {obj}`, `common.objectives.{form.__name__}`." in text
        equation = re.search(r"\.\. math:: (.*?)(?:\n\n|\Z)", inspect.getdoc(form), re.DOTALL)[1]
        other = re.search(r"The objective is that of \[(.*?)\]", text)
        text = by_name[other[1]] if other else text
        assert model.private or model.given_second or " ".join(equation.split()) in text


@pytest.mark.parametrize("table", [what_exists.objectives_table, what_exists.fusions_table])
def test_the_tables_of_what_exists_are_the_registrys(table):
    assert f"\n\n{table()}\n\n" in (ROOT / "docs" / "models.md").read_text(), f"models.md must have\n\n{table()}"


def test_each_folder_and_each_model_has_a_row_in_the_readme():
    text = (ROOT / "README.md").read_text().split("## Train on a dataset")[0]
    for script in ROOT.glob("*/train.py"):
        assert f"[{script.parent.name}]({script.parent.name})" in text
    for name in choices.MODELS:
        assert f"`{name}`" in text


@pytest.mark.parametrize("text", TEXTS)
def test_links_of_the_texts_lead_somewhere(text):
    for link in re.findall(r"\]\(([^)]+)\)", prose_of(text)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / text).parent / path
        assert target.exists(), f"{text} links to {path}"
        if anchor:
            titles = re.findall(
                r"^#+ (.*)$", (target / "README.md" if target.is_dir() else target).read_text(), re.MULTILINE
            )
            assert anchor in {title.lower().replace(" ", "-") for title in titles}, f"{text} links to {link}"


@pytest.mark.parametrize("text", TEXTS)
def test_the_paths_and_modules_that_the_texts_name_exist(text):
    """Paths with a slash, from the text's folder or the root, and modules of common."""
    prose = prose_of(text)
    for path in re.findall(r"`([\w./]+/(?:\w+\.(?:py|md))?)`", prose):
        assert path in DATA or any((base / path).exists() for base in ((ROOT / text).parent, ROOT)), f"{text}: {path}"
    for name in re.findall(r"`(common\.[\w.]+)`", prose):
        pkgutil.resolve_name(name)


def prose_of(text):
    """A text without its blocks of code."""
    return re.sub(r"```.*?```", "", (ROOT / text).read_text(), flags=re.DOTALL)


def test_a_folder_of_pairs_is_an_experiment(tmp_path, monkeypatch):
    _, _, code, *_ = python_of("docs/own_data.md")
    assert code.count("\n") < 59
    (tmp_path / "pairs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for split, name, i in itertools.product(("train", "test"), "ab", range(12)):
        write_image(tmp_path / split / name / f"{i}.png", i)
    pairs = importlib.import_module("pairs")
    args = f"--data-dir {tmp_path} --save-dir {tmp_path / 'run'} --epochs 1 --n-latents 4 --batch-size 5".split()
    run_script(pairs, args)
    assert (tmp_path / "run" / "samples" / "from_a.png").exists()

    model = checkpoints.load_model(tmp_path / "run", build=pairs.build)
    config = pairs.Config(data_dir=tmp_path)
    train, test = pairs.load("train", config), pairs.load("test", config)
    assert len(train) == len(test) == 12
    decoded = model.reconstruct({"a": test[:].modalities["a"]})
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


def translated_commands(readme):
    """(folder, command) of each of our commands in a README's tables of the original's commands beside ours."""
    for table in re.findall(r"^\| original \| here \|\n((?:\|.*\n)+)", (ROOT / readme).read_text(), re.MULTILINE):
        for row in table.splitlines()[1:]:
            _, ours = row.strip("| ").split(" | ")
            yield from ((Path(readme).parent, shlex.split(command)[1:]) for command in re.findall("`(.*?)`", ours))


def tabulated_commands(readme):
    """(folder, command) of each row of the table of all results."""
    row = re.compile(r"^\| \[(\w+)\]\(\.\./\w+\) \|.* \| `python (.*?)` \|$", re.MULTILINE)
    return [(Path(folder), shlex.split(command)) for folder, command in row.findall((ROOT / readme).read_text())]


SMALLER = {  # by README and script, folder and script, script, or subcommand
    "train.py": "--limit 12",
    "train": "--limit 12",
    "loglike.py": "--limit 5 --n-samples 2",
    "loglike": "--limit 5 --n-samples 2",
    "analyse.py": "--limit 25 --no-umap --n-samples 10",
    "README.md, analyse.py": "--limit 25 --n-samples 10",  # README.md has not set up UMAP
    "vision/analyse.py": "--limit 25 --no-umap",
    "mfeat/analyse.py": "--limit 25 --n-samples 2",
    "cub/train.py": "--K 1 --limit 12",
    "cub/features.py": "--size 32 --epochs 1 --batch-size 4",
    "cub/analyse.py": "--n-samples 5 --components 2 --no-umap",
    "example": "--epochs 1",
    "vhe/analyse.py": "--n-way 2 --episodes 2 --n-samples 1",
    "compare.py": "--variants hidden=8 --seeds 0 --n-test 5 --n-samples 5 --jobs 1",
    "label_expert.py": "--steps 2",
    "weak_supervision.py": "--limit 100 --fractions 0.5 --seeds 0 --classifier-steps 2 --jobs 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("readme", [pytest.param("README.md", marks=pytest.mark.base), *READMES[1:]])
def test_commands_of_the_readmes_run(readme, tmp_path, monkeypatch, capsys, request):
    """Each as written, on small data: what a reader types must parse, and do its work on the run before it."""
    if readme == "mnist/README.md":
        request.getfixturevalue("finely")
    write_celeba(tmp_path / "data", n=16)
    write_cub(tmp_path / "data")
    write_mfeat(tmp_path / "data")
    write_image(tmp_path / "bird.jpg", 0)
    twenty = {"images_background": {"Greek": (20, 20), "Latin": (20, 20)}, "images_evaluation": {"Tengwar": (20, 20)}}
    write_omniglot(tmp_path / "data", sets=twenty, first=961)  # as Omniglot's test images begin with 0965
    digits = np.pad(IMAGES[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4)))  # they have margins
    write_mnist(tmp_path / "data", images=np.tile(digits, (5, 1, 1)), labels=np.arange(60) % 10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multimnist.data, "N", {"train": 30, "test": 30})
    monkeypatch.setattr(Trainer, "fit", small(Trainer.fit))
    monkeypatch.setattr(cub.feature_network, "resnet101", small_resnet)
    monkeypatch.setattr(cub.demo, "N_DEMO", {"train": 200, "test": 50})
    monkeypatch.setattr(cub.classifier, "BIRDS", 200)
    monkeypatch.setattr(celeba.classifier, "STEPS", 2)
    monkeypatch.setattr(mnist_svhn.classifier, "STEPS", 2)
    monkeypatch.setattr(classifiers, "MAX_EPOCHS", 1)
    for folder, (script, *args) in readme_commands(readme):
        if folder == Path():  # reproduce.py calls scripts in processes: tests/tools/reproduction
            continue
        module = importlib.import_module(f"{folder.as_posix().replace('/', '.')}.{script.removesuffix('.py')}")
        for option in {"--data-dir", "--mnist-dir"} & set(args):
            args[args.index(option) + 1] = "data"
        monkeypatch.setattr(sys, "argv", [os.fspath(ROOT / folder / script), *args])
        keys = (f"{readme}, {script}", f"{folder}/{script}", script, *args[:1])
        smaller = next((SMALLER[key] for key in keys if key in SMALLER), "")
        args += (SMALLER["example"] if script.startswith("example_") else smaller).split()
        run_script(module, args)
        if script == "setup.py" and args[0] == "mask":  # finds no face in such images
            shutil.copytree("data/grayscale", args[2], dirs_exist_ok=True)


def small(fit):
    def fit_one_epoch(trainer):
        trainer.config.epochs = 1
        fit(trainer)

    return fit_one_epoch


@pytest.mark.parametrize(
    ("script", "options"),
    [(mnist_train, {}), (multimnist.train, {}), (celeba.train, {}), (polymnist.train, {"networks": "small"})],
)
def test_numbers_of_parameters_are_those_of_the_models(script, options):
    folder = script.__name__.split(".")[0]
    readme = (ROOT / folder / "README.md").read_text()
    for name in get_args(get_type_hints(script.Config)["model"]):
        config = script.Config(model=name, **options)
        if folder == "polymnist" and not choices.MODELS[name].private:
            config.n_latents = 64
        model = importlib.import_module(f"{folder}.model").build(config)
        assert f"{parameter_counts(model)['all']:,}" in readme, name
