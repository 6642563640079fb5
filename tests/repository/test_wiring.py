"""Every option has its effect, every script reads its split, and what is given decides what comes out."""

import importlib
import json
import sys
from dataclasses import fields

import celeba19.train
import mfeat.train
import mnist.train
import mnist_svhn.train
import multimnist.train
import polymnist.train
from common import checkpoints
from common.data import Examples
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior, LearnedPrior
from common.variational_posteriors import DiagonalGaussianPosterior
from mnist import analyse as analyse_mnist
from mnist import loglike, sample
from mnist.data import CLASSES, MNIST
from reports import analysis, classifiers, metrics, sampling
from reports.analysis import analyse
from reports.metrics import Judge, joint_coherence
from reports.sampling import Shown
from tests.helpers.scripts import call
from tests.repository.test_evaluations import FEW, FOLDERS, untrained
from training import run
from training.runs import REPORTING, SPEED

import pytest
import torch
import tyro
from torch import nn

TINY = "--demo --limit 60 --epochs 2 --batch-size 10 --n-latents 3 --lr-schedule constant"
FACES = "--demo --limit 12 --epochs 1 --batch-size 6 --n-latents 3 --lambda-attrs 5"
TEXTS = "--demo --limit 24 --epochs 1 --batch-size 12 --n-latents 3"
SPLITS = ("train", "test")
PAIRS = "--demo --limit 24 --epochs 1 --batch-size 12 --n-latents 4 --annealing-epochs 0 --valid 4"
EFFECTS = [  # a train.py, options of all, and options of which each changes the result
    *(
        (mnist.train, TINY, option)
        for option in (
            *("--seed 1", "--limit 50", "--batch-size 20", "--epochs 3", "--lr 1e-2", "--n-latents 4", "--valid 5"),
            *("--beta 2", "--annealing-epochs 2", "--lambda-image 2", "--lambda-text 2", "--max-grad-norm 1"),
            *("--lr-schedule cosine", "--optimizer amsgrad", "--paired-fraction 0.5", "--binary", "--model mvae-q"),
            *("--posterior ebm", "--obj elbo"),
        )
    ),
    *((mnist.train, f"{TINY} --model jmvae", option) for option in ("--alpha 1", "--obj telbo")),
    *(
        (mnist.train, f"{TINY} --model bivcca --obj dreg", option)
        for option in ("--K 3", "--no-looser", "--dreg published", "--dreg stop-all")
    ),
    (multimnist.train, TEXTS, "--lambda-text 2"),
    (mnist_svhn.train, f"{PAIRS} --model code", "--rho 0.7"),
    (mnist_svhn.train, f"{PAIRS} --model mmvm", "--alpha 0.5"),
    (mnist_svhn.train, f"{PAIRS} --model mmvm", "--obj mmvm-mixture"),
    *((celeba19.train, FACES, option) for option in ("--lambda-attrs 1", "--weighting authors", "--approx-m 0")),
    (mnist_svhn.train, f"{PAIRS} --K 2", "--llik-scaling 1"),
    *((polymnist.train, PAIRS, option) for option in ("--missing 0.5", "--quadrant")),
    *((mfeat.train, PAIRS, option) for option in ("--missing 0.5", "--lambda-digit 1")),
]


# options of mnist's train.py that change how fast it learns, what it tells, where files lie, or other options
OTHERS = SPEED | REPORTING | {"data_dir", "demo", "download", "save_dir", "experiment", "settings", "resume"}
OTHERS |= {"pre_trained", "eval_interval", "patience", "approx_m"}


def test_every_option_of_mnist_is_tried():
    tried = {word.strip("-").replace("-", "_") for *_, option in EFFECTS for word in option.split() if word[:2] == "--"}
    options = {field.name for field in fields(mnist.train.Config)}
    assert {name.removeprefix("no_") for name in tried} | OTHERS >= options


def learnt(script, folder, options):
    """The parameters of a run's last model: bounds would differ too where only the validation takes an option."""
    if not (folder / "metrics.jsonl").exists():
        call(script, *options.split(), "--save-dir", folder)
    return {name: x.tolist() for name, x in checkpoints.load(folder / checkpoints.LAST)["state_dict"].items()}


@pytest.mark.parametrize(("script", "options", "option"), EFFECTS)
def test_each_option_changes_what_is_learnt(script, options, option, tmp_path, tmp_path_factory):
    name = f"{script.__name__} {options}"
    usual = learnt(script, tmp_path_factory.getbasetemp() / name, options)
    assert learnt(script, tmp_path, f"{options} {option}") != usual


def config_of(folder, **options):
    small = {"demo": True, "limit": 200, "n_latents": 3, "batch_size": 20, "annealing_epochs": 0}
    return mnist.train.Config(save_dir=folder, **small | {"lr_schedule": "constant"} | options)


def test_the_best_model_is_that_of_the_validation_examples_and_not_the_last_one(tmp_path):
    """Inverted digits: the more is learnt, the lower is their bound."""
    config = config_of(tmp_path, epochs=4)
    digits = MNIST.load("train", config)
    inverted = Examples({"image": 1 - digits[:].modalities["image"], "text": digits[:].modalities["text"]})
    run(config, mnist.train.experiment()._replace(load_train=lambda config: (digits, inverted), draw=None))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained, valid = ([x[split]["bound"] for x in lines] for split in ("train", "valid"))
    assert trained == sorted(trained) and valid.index(max(valid)) < 3
    best, last = (checkpoints.load(tmp_path / name) for name in (checkpoints.BEST, checkpoints.LAST))
    assert best["epoch"] == last["best_epoch"] == valid.index(max(valid)) + 1
    for name, x in checkpoints.load_model(tmp_path).state_dict().items():
        assert x.equal(best["state_dict"][name])
    assert not all(x.equal(last["state_dict"][name]) for name, x in best["state_dict"].items())


def test_a_resumed_run_goes_on_with_the_schedule_of_its_learning_rate(tmp_path):
    def stopped(run, line):
        raise KeyboardInterrupt

    rates, cosine = {}, {"epochs": 3, "lr_schedule": "cosine"}
    run(config_of(tmp_path / "whole", **cosine), mnist.train.experiment())
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path / "parts", **cosine), mnist.train.experiment(), [stopped])
    run(config_of(tmp_path / "parts", resume=True, **cosine), mnist.train.experiment())
    for name in ("whole", "parts"):
        rates[name] = [json.loads(line)["lr"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert rates["parts"] == rates["whole"] and len(set(rates["whole"])) == 3


@pytest.fixture(scope="module")
def of_digits(tmp_path_factory):
    """A model of mnist as it is before training."""
    path = tmp_path_factory.mktemp("untrained") / "model.pt"
    torch.manual_seed(0)
    return untrained(mnist.train.experiment(), mnist.train.Config(demo=True, n_latents=32), path)


@pytest.fixture
def latents(monkeypatch):
    """The z (..., D) that models decode."""
    decoded, decode = [], MultimodalVAE.decode

    def recorded(model, z, *args, **kwargs):
        decoded.append(z.detach().clone())
        return decode(model, z, *args, **kwargs)

    monkeypatch.setattr(MultimodalVAE, "decode", recorded)
    return decoded


def test_what_samples_are_given_decides_them(of_digits, latents):
    conditions = [
        *("", "--seed 1", "--n-samples 2", "--mixture 2", "--reconstruct"),
        *("--condition-on-text 3", "--condition-on-text 7", "--condition-on-text 3 --sampler posterior"),
        *("--condition-on-image 3", "--condition-on-image 7"),
        *("--condition-on-image 3 --condition-on-text 7", "--condition-on-image 7 --condition-on-text 7"),
        "--condition-on-image 3 --condition-on-text 3",
    ]
    for condition in conditions:
        call(sample, of_digits, "--demo", "--limit", 200, *condition.split())
    assert len({tuple(z.flatten().tolist()) for z in latents}) == len(latents) == len(conditions)


def test_options_of_estimates_change_them(of_digits):
    found = [
        call(loglike, of_digits, "--demo", "--limit", 5, *options)["log p(image)"]["mean"]
        for options in (("--n-samples", 3), ("--n-samples", 4), ("--n-samples", 3, "--seed", 1), ("--tolerance", 9.0))
    ]
    assert len(set(found)) == 4


def recording(load, splits):
    """A function that loads, and notes which split."""

    def recorded(*args, **options):
        splits.update(x for x in args if x in SPLITS)
        return load(*args, **options)

    return recorded


@pytest.mark.parametrize("folder", FOLDERS)
def test_log_likelihoods_are_of_the_test_split(folder, tmp_path, monkeypatch):
    train, script = (importlib.import_module(f"{folder}.{name}") for name in ("train", "loglike"))
    config = tyro.cli(train.Config, args=["--demo", "--limit", "12", "--n-latents", "3", *map(str, FOLDERS[folder])])
    experiment = train.experiment(config) if folder in ("mnist_svhn", "cub") else train.experiment()
    path, splits = untrained(experiment, config, tmp_path / "model.pt"), set()
    for module in [x for name, x in sys.modules.items() if name.split(".")[0] in FOLDERS]:
        for name in {"load", "load_as_trained", "load_birds", "load_test"} & set(vars(module)):
            monkeypatch.setattr(module, name, recording(getattr(module, name), splits))
    scored, evaluate = [], metrics.evaluate_examples
    monkeypatch.setattr(
        metrics, "evaluate_examples", lambda model, x, *args: scored.append(x) or evaluate(model, x, *args)
    )
    call(script, path, *FEW)
    assert splits == {"test"}
    if folder == "mnist":  # the others' loaders are told the split by name
        known = MNIST.load("test", loglike.Config(path, demo=True, limit=4))
        assert scored[0][:].modalities["image"].equal(known[:].modalities["image"])


def test_posteriors_in_pictures_of_cross_generation_are_given_their_source_alone(tmp_path, latents):
    encoder = {name: SplitLinearLayer(3, (1, 1)) for name in "ab"}
    for name, value in (("a", 10.0), ("b", -10.0)):  # narrow experts at other places
        nn.init.zeros_(encoder[name].linear.weight)
        encoder[name].linear.bias.data = torch.tensor([value, -20.0])
    likelihood = GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0, 3) for name in "ab"})
    decoder = {name: nn.Sequential(nn.Linear(1, 3), nn.Unflatten(1, (1, 1, 3))) for name in "ab"}
    model = VAE("poe", {n: nn.Sequential(nn.Flatten(), x) for n, x in encoder.items()}, decoder, likelihood, 1)
    examples = Examples({name: torch.rand(4, 1, 1, 3) for name in "ab"})
    sampling.cross_generation(tmp_path / "x.png", model, examples, {n: (n,) for n in "ab"}, Shown(("a", "b")))
    sampling.decoded(tmp_path / "y.png", model, examples, ("a",), Shown(("a", "b")), 4)
    assert [round(z.mean().item()) for z in latents] == [10, -10, 10]


@pytest.mark.parametrize("clustered", [False, True])
def test_what_is_generated_follows_the_prior(clustered):
    family = DiagonalGaussianPosterior()
    prior = ClusteredPrior(family, 1, 1, 2) if clustered else LearnedPrior(family, 1, learn_loc=True)
    prior.loc.data = torch.full_like(prior.loc, 50.0)
    encoder = {name: SplitLinearLayer(1, (1, 1)) for name in "ab"}
    decoder = {name: nn.Identity() for name in "ab"}
    likelihood = GroupedLikelihood(a=SphericalGaussianLikelihood(1.0), b=SphericalGaussianLikelihood(1.0))
    model = VAE("moe", encoder, decoder, likelihood, 1)
    model.prior = prior
    assert (model.generate(100)["a"] > 40).all()
    far = {"a": lambda values: (values["a"] > 40).long(), "b": lambda values: torch.ones_like(values["b"]).long()}
    assert joint_coherence(model, 100, {name: Judge((name,), read) for name, read in far.items()}).all()


def test_latent_accuracy_is_measured_on_test_examples(of_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "MAX_EPOCHS", 1)
    data, measured = analyse_mnist.by_class(MNIST, CLASSES), []

    def accuracy(train, test, n_values):
        assert len(train[0]) == len(test[0]) and not train[0].equal(test[0])
        measured.append((train[1], test[1]))
        return torch.ones_like(test[1], dtype=torch.bool)

    monkeypatch.setattr(analysis, "latent_accuracy", accuracy)
    config = analyse_mnist.Config(of_digits, demo=True, limit=60, n_samples=5, umap=False, data_dir=tmp_path)
    analyse(config, data)
    train, test = (MNIST.load(split, config)[:].modalities["text"][:, None] for split in SPLITS)
    assert len(measured) == 2 and not train.equal(test)
    assert all(x.equal(train) and y.equal(test) for x, y in measured)
