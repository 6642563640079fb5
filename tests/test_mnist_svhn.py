"""The scripts of mnist_svhn, on the demo data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Laplace, Normal

from common.checkpoints import LAST, load, load_model
from common.errors import InputError
from common.estimators import log_marginal
from common.objectives import DregElbo, IwaeElbo, MixtureElbo, MvaeElbo, StandardElbo, StlElbo
from mnist_svhn import analyse, loglike, sample, train
from mnist_svhn.data import PairOptions, load_train
from mnist_svhn.data import load as load_pairs
from mnist_svhn.model import build
from tests.test_data import write_mnist

SMALL = {"demo": True, "limit": 96, "epochs": 1, "batch_size": 32, "K": 2}


def config(save_dir="unused", **changes):
    return train.Config(save_dir=save_dir, **(SMALL | changes))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"obj": "iwae", "looser": False, "prior_and_posterior": "normal"},
        {"obj": "stl", "learn_prior": False},
        {"obj": "elbo", "llik_scaling": 1.0},
        {"model": "mvae", "obj": "mvae"},
        {"model": "mvae", "obj": "dreg"},
        {"model": "mvae", "obj": "elbo"},
        {"model": "mopoe", "obj": "elbo", "beta": 0.5},
        {"model": "mnist"},
        {"model": "svhn", "obj": "elbo", "num_hidden_layers": 2},
    ],
)
def test_models_and_objectives_train_and_load(tmp_path, options):
    train.main(config(tmp_path, **options))
    model = load_model(tmp_path)
    alone = options.get("model") in ("mnist", "svhn")
    assert model.modalities == ((options["model"],) if alone else ("mnist", "svhn"))
    for name in ("prior", *(f"from_{name}" for name in model.modalities)):
        with Image.open(tmp_path / "samples" / f"{name}.png") as picture:
            assert picture.width > 300
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["beta"] == options.get("beta", 1.0)
    assert all(torch.tensor([*line[split].values()]).isfinite().all() for split in ("train", "valid"))
    checkpoint = load(tmp_path / LAST)
    assert checkpoint["optimizer"]["param_groups"][0]["amsgrad"]
    moved = (model.state_dict()["prior.scale"] != 0).any().item()
    assert moved == options.get("learn_prior", True)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, DregElbo),
        ({"obj": "iwae"}, IwaeElbo),
        ({"obj": "stl"}, StlElbo),
        ({"obj": "elbo"}, MixtureElbo),
        ({"obj": "elbo", "model": "mvae"}, StandardElbo),
        ({"obj": "mvae", "model": "mvae"}, MvaeElbo),
    ],
)
def test_objectives_by_name(options, kind):
    options = config(**options)
    objective = train.objective(options, build(options))
    assert type(objective) is kind
    assert objective.weights == {"mnist": pytest.approx(3072 / 784), "svhn": 1.0}
    if isinstance(objective, IwaeElbo):
        assert (objective.K, objective.looser) == (2, True)


def test_the_papers_settings_are_the_defaults():
    defaults = train.Config()
    model = build(defaults)
    objective = train.objective(defaults, model)
    assert (type(objective), objective.K, objective.looser, objective.gradient) == (DregElbo, 30, True, "exact")
    assert (defaults.batch_size, defaults.epochs, defaults.lr, defaults.n_latents) == (128, 30, 1e-3, 20)
    assert isinstance(model.prior().base_dist, Laplace) and model.prior.scale.requires_grad
    p = model.decode(model.prior().sample((2,)))
    assert all(isinstance(q.base_dist, Laplace) and (q.base_dist.scale == 0.75).all() for q in p.values())
    assert isinstance(build(train.Config(model="mopoe")).prior().base_dist, Normal)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 0}, "--K must be positive, not 0"),
        ({"llik_scaling": -1.0}, "--llik-scaling must not be negative"),
        ({"beta": -0.5}, "--beta must not be negative"),
        ({"num_hidden_layers": 0}, "--num-hidden-layers must be positive"),
        ({"matchings": 0}, "--matchings must be positive"),
        ({"model": "mvae", "prior_and_posterior": "laplace"}, "--model mvae takes products of experts"),
        ({"obj": "mvae"}, "--obj mvae is of --model mvae, not mmvae"),
        ({"paired_fraction": 0.5}, "leave --paired-fraction at 1"),
        ({"valid": 10_000}, "--valid 10000 leaves no training image"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train.main(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_validation_has_images_of_its_own():
    training, valid = load_train("", PairOptions(matchings=3), demo=True)
    for name in ("mnist", "svhn"):
        a, b = ({image.numpy().tobytes() for image in part.modalities[name]} for part in (training, valid))
        assert len(a) > 500 and len(b) > 100 and len(a & b) <= 0.01 * len(b)
    assert (valid.rows["mnist"].unique(return_counts=True)[1] == 1).all(), "one matching"
    assert load_train("", PairOptions(), demo=True, valid=0)[1] is None


def test_likelihoods(tmp_path):
    train.main(config(tmp_path))
    options = {"demo": True, "limit": 6, "n_samples": 400, "paper": True, "json": tmp_path / "out.json"}
    found = loglike.main(loglike.Config(tmp_path, **options))
    assert json.loads((tmp_path / "out.json").read_text())["estimates"] == found
    model = load_model(tmp_path)
    batch = load_pairs("test", "", PairOptions(matchings=1), demo=True, limit=6)[:]
    inputs = {name: batch.modalities[name] for name in model.modalities}
    for name, target, given in [
        ("log p(mnist,svhn)", ("mnist", "svhn"), ("mnist", "svhn")),
        ("log p(svhn)", ("svhn",), ("mnist", "svhn")),
        ("log p(svhn), z from q(z|mnist)", ("svhn",), ("mnist",)),
    ]:
        expected = log_marginal(model, inputs, target, given, 400).mean().item()
        assert found[name]["mean"] == pytest.approx(expected, abs=8), name
    with torch.no_grad():
        weighed = IwaeElbo(model, K=400).bound(inputs).value.mean().item()
        unweighed = IwaeElbo(model, K=400, weights={"mnist": 1.0}).bound(inputs).value.mean().item()
    assert abs(weighed - unweighed) > 100
    assert found[loglike.PAPER]["mean"] == pytest.approx(weighed, abs=30), "few samples count after one epoch"
    assert found["log p(mnist,svhn)"]["mean"] == pytest.approx(unweighed, abs=8)


def test_likelihoods_of_one_modality(tmp_path):
    train.main(config(tmp_path, model="svhn"))
    found = loglike.main(loglike.Config(tmp_path, demo=True, limit=10, n_samples=20))
    assert set(found) == {"log p(svhn)", "effective samples, svhn"}


def test_coherence_and_latent_accuracy(tmp_path, monkeypatch):
    train.main(config(tmp_path))
    monkeypatch.setattr(analyse, "STEPS", 100)
    path = tmp_path / "out.json"
    found = analyse.main(analyse.Config(tmp_path, demo=True, limit=200, n_samples=60, json=path))
    content = json.loads(path.read_text())
    assert content["figures"] == found and content["svhn"] == "demo"
    pairs = [f"coherence, {a} -> {b}" for a in ("mnist", "svhn") for b in ("mnist", "svhn")]
    of_each = [f"{what}, {name}" for what in ("classifier", "latent accuracy") for name in ("mnist", "svhn")]
    assert set(found) == {*pairs, *of_each, "coherence, joint"}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["classifier, mnist"] > 0.3, "it has learned, and is tested on images"


def test_classifiers_are_trained_once_for_a_folder_of_data(tmp_path, monkeypatch):
    digits = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path, images=digits, labels=np.arange(40) % 10)
    train.main(config(tmp_path / "run", model="mnist"))
    monkeypatch.setattr(analyse, "STEPS", 3)
    options = {"data_dir": tmp_path, "svhn": "synthetic", "n_samples": 20}
    analyse.main(analyse.Config(tmp_path / "run", **options))
    path = tmp_path / "digits_of_mnist_synthetic.pt"
    first = path.read_bytes()
    monkeypatch.setattr(analyse, "STEPS", 10**9)
    figures = analyse.main(analyse.Config(tmp_path / "run", **options))
    assert path.read_bytes() == first
    assert set(figures) == {"classifier, mnist", "coherence, mnist -> mnist", "latent accuracy, mnist"}


def test_samples(tmp_path, capsys):
    train.main(config(tmp_path))
    sample.main(sample.Config(tmp_path, n_samples=20))
    for given in ("mnist", "svhn"):
        sample.main(sample.Config(tmp_path, n_samples=20, given=given, demo=True))
    sample.main(sample.Config(tmp_path, traverse=True))
    names = ("prior", "from_mnist", "from_svhn", "traversal_mnist", "traversal_svhn")
    pictures = [tmp_path / "samples" / f"sample_{name}.png" for name in names]
    assert capsys.readouterr().out.splitlines()[-5:] == [str(picture) for picture in pictures]
    for picture in pictures:
        with Image.open(picture) as file:
            assert min(file.size) > 200
    with pytest.raises(InputError, match="leave out --given"):
        sample.main(sample.Config(tmp_path, traverse=True, given="svhn"))


def test_a_modality_that_the_model_lacks_is_no_condition(tmp_path):
    train.main(config(tmp_path, model="svhn"))
    with pytest.raises(InputError, match="this model has no mnist: give it svhn"):
        sample.main(sample.Config(tmp_path, given="mnist", demo=True))


def test_traversals_move_one_latent_at_a_time(tmp_path, monkeypatch):
    train.main(config(tmp_path, n_latents=3))
    model, seen = load_model(tmp_path), []

    def decode(z, original=model.decode):
        seen.append(z)
        return original(z)

    monkeypatch.setattr(model, "decode", decode)
    with torch.no_grad():
        sample.traversals(model, tmp_path)
        p = model.prior()
    (z,) = seen
    assert z.shape == (3, 16, 3)
    offsets = (z - p.mean) / p.stddev
    for d in range(3):
        assert offsets[d, [0, -1], d].tolist() == pytest.approx([-3, 3])
        assert (offsets[d].abs() > 1e-6).any(dim=0).tolist() == [i == d for i in range(3)]
