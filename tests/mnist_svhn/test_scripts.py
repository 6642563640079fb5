"""The scripts of mnist_svhn, on the demo data."""

import json
import math
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch.distributions import Laplace, Normal

from common.checkpoints import BEST, LAST, load, load_model
from common.data import Batch
from common.errors import InputError
from common.estimators import joint_and_each, log_marginal
from common.execution.decoder import DECODED_AT_ONCE
from common.io import save_tensors
from common.models.objectives import make_objective
from common.objectives import ArElbo, DregIwaeElbo, IwaeElbo, MmvaeElbo, MvaeElbo, ReweightedElbo, StandardElbo, StlElbo
from mnist_svhn import analyse, loglike, sample, train
from mnist_svhn import classifier as classifiers
from mnist_svhn.data import load as load_pairs
from mnist_svhn.data import load_train
from mnist_svhn.model import build
from mnist_svhn.options import PairOptions, TrainingPairOptions
from reports.sampling import STEPS, Shown, traversals
from tests.helpers.data_config import data_config
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw, exact_log_p
from tests.helpers.mnist_files import write_mnist
from tests.helpers.scripts import run_script
from training.command_line import parse
from training.options import as_json

SMALL = {"demo": True, "limit": 96, "epochs": 1, "batch_size": 32}


def config(save_dir="unused", **changes):
    several = {"K": 2} if changes.get("obj", "dreg") in ("dreg", "iwae", "stl") else {}
    return train.Config(save_dir=save_dir, **(SMALL | several | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train.main(config(folder))
    return folder


@pytest.mark.slow
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
        {"model": "mvae", "obj": "ar", "prior_and_posterior": "vmf"},
        {"prior_and_posterior": "vmf"},
        {"model": "mopoe", "obj": "elbo", "beta": 0.5},
        {"model": "svhn"},
        {"model": "mnist", "obj": "elbo", "num_hidden_layers": 2},
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
    if "prior.scale" in model.state_dict():
        moved = (model.state_dict()["prior.scale"] != 0).any().item()
        assert moved == options.get("learn_prior", True)
    else:
        assert options.get("prior_and_posterior") == "vmf" or options["model"] in ("mvae", "mopoe")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, DregIwaeElbo),
        ({"obj": "iwae"}, IwaeElbo),
        ({"obj": "stl"}, StlElbo),
        ({"obj": "elbo"}, MmvaeElbo),
        ({"obj": "elbo", "model": "mopoe"}, MmvaeElbo),
        ({"obj": "elbo-importance"}, ReweightedElbo),
        ({"obj": "elbo", "model": "mvae"}, StandardElbo),
        ({"obj": "mvae", "model": "mvae"}, MvaeElbo),
        ({"obj": "ar", "model": "mvae"}, ArElbo),
    ],
)
def test_objectives_by_name(options, kind):
    options = config(**options)
    objective = make_objective(options.obj, build(options), options)
    assert type(objective) is kind
    assert objective.weights == {"mnist": pytest.approx(3072 / 784), "svhn": 1.0}
    if isinstance(objective, IwaeElbo):
        assert (objective.K, objective.looser) == (2, True)


def test_the_papers_settings_are_the_defaults():
    defaults = train.Config()
    assert defaults.learn_prior and defaults.llik_scaling == 0
    model = build(defaults)
    objective = make_objective(defaults.obj, model, defaults)
    assert (type(objective), objective.K, objective.looser, objective.gradient) == (DregIwaeElbo, 30, True, "exact")
    assert (defaults.batch_size, defaults.epochs, defaults.lr, defaults.n_latents) == (128, 30, 1e-3, 20)
    assert isinstance(model.prior().base_dist, Laplace) and model.prior.scale.requires_grad
    p = model.decode(model.prior().sample((2,)))
    assert all(isinstance(q.base_dist, Laplace) and (q.base_dist.scale == 0.75).all() for q in p.values())
    assert isinstance(build(train.Config(model="mopoe")).prior().base_dist, Normal)


def test_the_authors_name_of_the_model():
    assert tyro.cli(train.Config, args=["--model", "mnist_svhn"]).model == "mmvae"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 0}, "--K must be positive, not 0"),
        ({"llik_scaling": -1.0}, "--llik-scaling must not be negative, it is -1.0"),
        ({"beta": -0.5}, "--beta must not be negative, it is -0.5"),
        ({"num_hidden_layers": 0}, "--num-hidden-layers must be positive"),
        ({"num_hidden_layers": 2, "model": "svhn"}, "--model svhn has none of mnist's networks"),
        ({"matchings": 0}, "--matchings must be positive"),
        (
            {"model": "mvae", "prior_and_posterior": "laplace"},
            "there is no fusion poe for laplace experts",
        ),
        ({"obj": "mvae"}, "--obj mvae does not exist"),
        ({"obj": "elbo-importance", "model": "mopoe"}, "--obj elbo-importance does not exist"),
        ({"obj": "elbo", "looser": True}, "--looser needs --obj dreg, iwae or stl \\(got --obj elbo\\)"),
        ({"obj": "iwae", "dreg": "exact"}, "--dreg needs --obj dreg \\(got --obj iwae\\)"),
        ({"model": "mnist", "llik_scaling": 2.0}, "--model mnist has one"),
        ({"beta": math.inf}, "--beta must be finite"),
        ({"llik_scaling": math.nan}, "--llik-scaling must be finite"),
        ({"valid": 10_000}, "--valid must lie between 0 and .*: it is 10000"),
        ({"svhn": "synthetic"}, "--svhn synthetic is made of MNIST's files, --demo needs none: leave out one"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train.main(config(tmp_path / "run", **options))
    assert not (tmp_path / "run" / LAST).exists()


def test_validation_has_images_of_its_own():
    training, valid = load_train(data_config("", TrainingPairOptions(matchings=3), demo=True))
    for name in ("mnist", "svhn"):
        a, b = ({image.numpy().tobytes() for image in part.modalities[name]} for part in (training, valid))
        assert len(a) > 500 and len(b) > 100 and len(a & b) <= 0.01 * len(b)
    assert (valid.rows["mnist"].unique(return_counts=True)[1] == 1).all(), "one matching"
    assert load_train(data_config("", TrainingPairOptions(), demo=True, valid=0))[1] is None


def test_save_dir_names_the_model_as_in_the_authors_scripts(trained, tmp_path):
    args = ["--demo", "--limit", "4", "--iwae-samples", "3", "--json"]
    for named, path in ((["--save-dir", str(trained)], tmp_path / "a"), ([str(trained)], tmp_path / "b")):
        run_script(loglike, [*named, *args, str(path)])
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


@pytest.fixture
def that_hardly_sees_z(trained, tmp_path):
    """The trained model, but z changes little in what it decodes, so that few samples give good estimates."""
    content = load(trained / BEST)
    for name in ("mnist", "svhn"):
        first = next(key for key in content["state_dict"] if key.startswith(f"decoder.{name}."))
        content["state_dict"][first] *= 0.02
    save_tensors(tmp_path / BEST, content)
    return tmp_path


@pytest.mark.slow
def test_likelihoods_are_those_of_the_estimators_and_go_into_the_file(that_hardly_sees_z):
    """Names, data, weights; `test_likelihoods_are_the_exact_ones` has the densities of z, which hardly count here."""
    folder, K = that_hardly_sees_z, 100
    options = {"demo": True, "limit": 6, "n_samples": K, "paper": True, "json": folder / "out.json"}
    found = loglike.main(loglike.Config(folder, **options))
    assert json.loads((folder / "out.json").read_text())["estimates"] == found
    model = load_model(folder)
    batch = load_pairs("test", data_config("", PairOptions(), demo=True, limit=6))[:]
    inputs = {name: batch.modalities[name] for name in model.modalities}
    for name, target, given in [
        ("log p(mnist,svhn)", ("mnist", "svhn"), ("mnist", "svhn")),
        ("log p(svhn)", ("svhn",), ("mnist", "svhn")),
        ("log p(svhn), z from q(z|mnist)", ("svhn",), ("mnist",)),
    ]:
        expected = log_marginal(model, inputs, target, given, K).mean().item()
        assert found[name]["mean"] == pytest.approx(expected, abs=0.5), name
    with torch.no_grad():
        weighed = IwaeElbo(model, K=K).bound(inputs).value.mean().item()
        unweighed = IwaeElbo(model, K=K, weights={"mnist": 1.0}).bound(inputs).value.mean().item()
    assert abs(weighed - unweighed) > 100
    papers = found["log p(mnist,svhn) weighed as in training, by the paper's estimator"]["mean"]
    assert papers == pytest.approx(weighed, abs=0.5)
    assert found["log p(mnist,svhn)"]["mean"] == pytest.approx(unweighed, abs=0.5)


def test_likelihoods_of_one_modality(tmp_path):
    train.main(config(tmp_path, model="svhn"))
    found = loglike.main(loglike.Config(tmp_path, demo=True, limit=10, n_samples=20, paper=True))
    weighed = "log p(svhn) weighed as in training, by the paper's estimator"
    qualities = {f"{quality}, log p(svhn)" for quality in ("effective samples", "variance of log-weights")}
    assert set(found) == {"log p(svhn)", weighed, *qualities}


@pytest.mark.parametrize("model", ["mvae", "mopoe"])
def test_likelihoods_of_other_fusions(tmp_path, model, capsys):
    train.main(config(tmp_path, model=model, obj="elbo"))
    loglike.main(loglike.Config(tmp_path, demo=True, limit=6, n_samples=20))
    out = capsys.readouterr().out
    assert "| mnist_svhn, demo data, 6 test examples, 20 samples |" in out
    assert r"| log p(svhn), z from q(z\|mnist) | " in out


@pytest.mark.parametrize("fusion", ["poe", "moe", "mopoe"])
def test_likelihoods_are_the_exact_ones(monkeypatch, fusion):
    """The linear-Gaussian model's, whatever the posterior and the encoder that gives the samples."""
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 10_000)
    model, weights, scales = with_fusion(fusion, 2)
    for expert in model.encoder.values():
        expert.precision.data *= 0.05  # wide: all importance weights are bounded
    inputs = draw(weights, scales, 4)
    found = joint_and_each(model, Batch(inputs), n_samples=100_000)
    for target, sources in (("a,b", [""]), *((name, ["", ", z from q(z|a)", ", z from q(z|b)"]) for name in "ab")):
        exact = exact_log_p(weights, scales, inputs, tuple(target.split(",")))
        for source in sources:
            torch.testing.assert_close(found[f"log p({target}){source}"], exact, rtol=0, atol=0.08)


@pytest.mark.slow
def test_coherence_and_latent_accuracy(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "STEPS", 100)
    # numba takes 15 seconds to compile the real one, which the README's commands run
    flat = SimpleNamespace(fit_transform=lambda z: z[:, :2].numpy())
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=lambda **_: flat, __spec__=object()))
    path = tmp_path / "out.json"
    options = {"limit": 200, "n_samples": 60, "json": path, "data_dir": tmp_path}
    found = analyse.main(analyse.Config(trained, out_dir=tmp_path, demo=True, **options))
    content = json.loads(path.read_text())
    of_all = {f"{name}, {n} given": x for n, scores in content["by_size"].items() for name, x in scores.items()}
    assert {name: x["mean"] for name, x in content["estimates"].items()} | of_all == found and content["data"] == "demo"
    assert {"coherence, 1 given", "macro, 1 given", "FD, 0 given", "linear accuracy, 2 given"} < set(of_all)
    assert set(content["by_subset"]) == {"", "mnist", "svhn", "mnist, svhn"}
    pairs = [f"coherence, {a} -> {b}" for a in ("mnist", "svhn") for b in ("mnist", "svhn")]
    of_each = [f"{what}, {name}" for what in ("classifier", "latent accuracy") for name in ("mnist", "svhn")]
    shares = {*pairs, *of_each, "coherence, joint", "clusters, k-means"}
    kls = {"KL(q(z|mnist) || p(z))", "KL(q(z|svhn) || p(z))", "J(q(z|mnist), q(z|svhn))"}
    similarities = {f"SSIM, {pair}" for pair in ("all -> mnist", "all -> svhn", "mnist -> mnist", "svhn -> svhn")}
    assert set(found) - set(of_all) == shares | kls | similarities
    assert all(0 <= found[name] <= 1 for name in shares) and all(found[name] > 0 for name in kls)
    assert found["classifier, mnist"] > 0.3, "it has learned, and is tested on images"
    networks = {f"{piece} {name}" for piece in ("encoder", "decoder") for name in ("mnist", "svhn")}
    assert networks < set(content["parameters"])
    assert content["parameters"]["all"] == sum(x.numel() for x in load_model(trained).parameters() if x.requires_grad)
    for name in ("kl", "umap", "cross_generation", "traversal_mnist", "traversal_svhn"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 300


@pytest.mark.slow
def test_analyses_repeat_and_need_some_pairs(tmp_path, monkeypatch):
    """Also where the classifiers are found in the cache, and whatever the seed of the first analysis."""
    digits = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path, images=digits, labels=np.arange(60) % 10)
    train.main(config(tmp_path / "run", svhn="synthetic", demo=False, data_dir=tmp_path))
    monkeypatch.setattr(classifiers, "STEPS", 3)
    options = {"data_dir": tmp_path, "svhn": "synthetic", "n_samples": 50, "umap": False}
    analyse.main(analyse.Config(tmp_path / "run", max_per_class=1, **options))
    own = {"digits_of_mnist_synthetic_pairs_0_1.pt", "digits_of_svhn_synthetic_pairs_0_1.pt"}
    assert {path.name for path in tmp_path.glob("digits_of_*.pt")} == own, (
        "classifiers of some images are not for others"
    )
    first = analyse.main(analyse.Config(tmp_path / "run", **options))
    assert len([*tmp_path.glob("digits_of_*.pt")]) == 4
    assert analyse.main(analyse.Config(tmp_path / "run", **options)) == first
    for path in tmp_path.glob("digits_of_*.pt"):
        path.unlink()
    analyse.main(analyse.Config(tmp_path / "run", **(options | {"seed": 5})))
    assert analyse.main(analyse.Config(tmp_path / "run", **options)) == first
    with pytest.raises(
        InputError, match="umap.png needs 20 test examples: raise --limit or --n-test, or give --no-umap"
    ):
        analyse.main(analyse.Config(tmp_path / "run", demo=True, limit=19))
    with pytest.raises(InputError, match="there is no folder .*, make it or give another file"):
        analyse.main(analyse.Config(tmp_path / "run", json=tmp_path / "no" / "out.json"))


def test_classifiers_are_trained_once_for_a_folder_of_data(tmp_path, monkeypatch):
    digits = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path, images=digits, labels=np.arange(40) % 10)
    train.main(config(tmp_path / "run", model="mnist", svhn="synthetic", demo=False, data_dir=tmp_path))
    monkeypatch.setattr(classifiers, "STEPS", 3)
    options = {"data_dir": tmp_path, "svhn": "synthetic", "n_samples": 20, "umap": False}
    analyse.main(analyse.Config(tmp_path / "run", **options))
    path = tmp_path / "digits_of_mnist_synthetic.pt"
    first = path.read_bytes()
    with monkeypatch.context() as untrained:
        untrained.setattr("reports.classifiers.fit", None)
        figures = analyse.main(analyse.Config(tmp_path / "run", **options))
    assert path.read_bytes() == first
    told = {"classifier, mnist", "latent accuracy, mnist", "coherence, mnist -> mnist", "KL(q(z|mnist) || p(z))"}
    by_size = {"FD, 0 given", "given targets, 1 given", "linear accuracy, 1 given"}
    assert set(figures) == told | by_size | {"clusters, k-means", "SSIM, mnist -> mnist"}
    assert not (tmp_path / "run" / "samples" / "umap.png").exists()
    monkeypatch.setattr(classifiers, "STEPS", 2)
    digits[0, 0, 0] ^= 255
    write_mnist(tmp_path, images=digits, labels=np.arange(40) % 10)
    with pytest.raises(InputError, match="digits_of_mnist_synthetic.pt is a classifier trained with other data"):
        analyse.main(analyse.Config(tmp_path / "run", **options))
    assert path.read_bytes() == first
    path.write_bytes(first[:-100])
    with pytest.raises(InputError, match="digits_of_mnist_synthetic.pt is damaged or not a checkpoint"):
        analyse.main(analyse.Config(tmp_path / "run", **options))


def test_sample_writes_a_picture_for_each_way_to_draw_z(trained, capsys):
    sample.main(sample.Config(trained, n_samples=20))
    for given in ("mnist", "svhn"):
        sample.main(sample.Config(trained, n_samples=20, given=given, demo=True))
    sample.main(sample.Config(trained, n_samples=20, mixture=2, demo=True))
    sample.main(sample.Config(trained, traverse=True))
    names = ("prior", "from_mnist", "from_svhn", "mixture_2", "along_latents_mnist", "along_latents_svhn")
    pictures = [trained / "samples" / f"{name}.png" for name in names]
    assert capsys.readouterr().out.splitlines()[-6:] == [str(picture) for picture in pictures]
    for picture in pictures:
        with Image.open(picture) as file:
            assert min(file.size) > 200
    with pytest.raises(InputError, match="leave out --given"):
        sample.main(sample.Config(trained, traverse=True, given="svhn"))
    with pytest.raises(InputError, match="--traverse draws no samples: leave out --n-samples"):
        sample.main(sample.Config(trained, traverse=True, n_samples=3))


def test_a_modality_that_the_model_lacks_is_no_condition(tmp_path):
    train.main(config(tmp_path, model="svhn"))
    with pytest.raises(InputError, match="this model has no mnist: use --given svhn"):
        sample.main(sample.Config(tmp_path, given="mnist", demo=True))


def test_traversals_move_one_latent_at_a_time(tmp_path, monkeypatch):
    train.main(config(tmp_path, n_latents=3))
    model, seen = load_model(tmp_path), []

    def decode(z, *names, original=model.decode):
        seen.append(z.view(3, -1, 3))
        return original(z, *names)

    monkeypatch.setattr(model, "decode", decode)
    with torch.no_grad():
        traversals(tmp_path / "latents", model, Shown(model.modalities))
        p = model.prior()
    (z,) = seen
    assert z.shape == (3, STEPS, 3)
    offsets = (z - p.mean) / p.stddev
    for d in range(3):
        assert offsets[d, [0, -1], d].tolist() == pytest.approx([-3, 3])
        assert (offsets[d].abs() > 1e-6).any(dim=0).tolist() == [i == d for i in range(3)]


def test_looser_is_on_where_it_means_something():
    for args, looser in ([], True), (["--no-looser"], False), (["--looser"], True), (["--obj", "stl"], True):
        options = parse(train.Config, args=args)
        options.check()
        assert make_objective(options.obj, build(options), options).looser is looser
    for args, message in (
        (["--obj", "elbo", "--looser"], "--looser needs --obj dreg, iwae or stl \\(got --obj elbo\\)"),
        (
            ["--model", "mvae", "--obj", "dreg", "--looser"],
            "--looser takes the mean over a mixture's components",
        ),
    ):
        parse(train.Config, args=args[:-1]).check()
        with pytest.raises(InputError, match=message):
            parse(train.Config, args=args).check()
    assert as_json(train.Config())["looser"] is None


def test_a_run_goes_on_from_another_ones_weights_and_options(tmp_path, monkeypatch, capsys):
    first = config(tmp_path / "first", n_latents=3, K=3, lr=0.5e-3, beta=0.5)
    train.main(first)
    before = load_model(tmp_path / "first").state_dict()
    seen = []
    args = ["--pre-trained", str(tmp_path / "first"), "--save-dir"]
    new = [str(tmp_path / "second"), "--lr", "1e-9", "--K", "2"]
    run_script(train, args + new, lambda config: seen.append(config) or train.main(config))
    (second,) = seen
    assert (second.n_latents, second.K, second.lr, second.beta, second.demo) == (3, 2, 1e-9, 0.5, True)
    for name, x in load_model(tmp_path / "second").state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=1e-6)
    with pytest.raises(SystemExit):
        run_script(train, [*args, str(tmp_path / "x"), "--n-latents", "4"])
    assert "first was trained with --n-latents 3, not --n-latents 4" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "args", "second"),
    [
        ({"K": 3, "looser": False}, ["--obj", "elbo", "--K", "1"], (MmvaeElbo, None, None)),
        ({"obj": "elbo"}, ["--obj", "dreg"], (DregIwaeElbo, 5, True)),
        ({"K": 3, "looser": False}, ["--obj", "iwae"], (IwaeElbo, 3, False)),
        ({"K": 3, "looser": False}, [], (DregIwaeElbo, 3, False)),
        ({"K": 3, "looser": False}, ["--K", "4"], (DregIwaeElbo, 4, False)),
    ],
)
def test_another_objective_has_its_own_options(tmp_path, first, args, second):
    train.main(config(tmp_path, **first))
    seen = []
    run_script(train, ["--pre-trained", str(tmp_path), *args], seen.append)
    objective = make_objective(seen[0].obj, build(seen[0]), seen[0])
    assert (type(objective), getattr(objective, "K", None), getattr(objective, "looser", None)) == second
    seen[0].check()


@pytest.mark.slow
def test_another_model_has_no_private_latents_of_the_first(tmp_path):
    train.main(config(tmp_path, model="cmvae", obj=None))
    seen = []
    for args in ([], ["--model", "mmvae"]):
        run_script(train, ["--pre-trained", str(tmp_path), *args], seen.append)
        seen[-1].check()
    assert [(x.model, x.n_private, x.n_clusters) for x in seen] == [("cmvae", (10, 10), 40), ("mmvae", None, None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_and_posterior": "normal"}, "laplace, not --prior-and-posterior normal"),
        ({"model": "mopoe", "obj": "dreg"}, "--model mmvae, not --model mopoe"),
    ],
)
def test_weights_of_other_meaning_are_not_taken(trained, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train.main(config(tmp_path / "other", pre_trained=trained, **options))


@pytest.mark.slow
def test_a_run_from_other_weights_is_resumed_without_them(tmp_path):
    train.main(config(tmp_path / "run", n_latents=3))
    args = ["--pre-trained", str(tmp_path / "run"), "--save-dir", str(tmp_path / "more")]
    run_script(train, [*args, "--resume"])  # there is nothing to resume yet
    shutil.rmtree(tmp_path / "run")
    run_script(train, [*args, "--resume", "--epochs", "2"])
    assert load(tmp_path / "more" / LAST)["epoch"] == 2


def test_the_authors_folder_trains_on(mmvae, tmp_path):
    args = ["--pre-trained", str(mmvae), "--save-dir", str(tmp_path), "--demo", "--limit", "40", "--K", "2"]
    run_script(train, [*args, "--epochs", "1"])
    assert load(tmp_path / LAST)["config"]["llik_scaling"] == 0


def test_likelihoods_at_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loglike, "Config", partial(loglike.Config, n_samples=5))
    train.main(config(tmp_path, logp=True, model="svhn"))
    assert "| log p(svhn) |" in capsys.readouterr().out


@pytest.mark.parametrize(("script", "options"), [(sample, {"given": "svhn"}), (loglike, {}), (analyse, {})])
def test_a_model_of_other_data_is_named(trained, tmp_path, script, options):
    checkpoint = load(trained / BEST)
    checkpoint["config"]["svhn"] = "synthetic"
    save_tensors(tmp_path / BEST, checkpoint)
    with pytest.raises(InputError, match="was trained with --demo --svhn synthetic: give the same options"):
        script.main(script.Config(tmp_path, **options))


def test_a_model_on_the_sphere_is_scored_and_analysed(tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "STEPS", 3)
    train.main(config(tmp_path, prior_and_posterior="vmf"))
    found = analyse.main(analyse.Config(tmp_path, data_dir=tmp_path, demo=True, limit=60, n_samples=20, umap=False))
    assert found["KL(q(z|mnist) || p(z))"] > 0
    assert loglike.main(loglike.Config(tmp_path, demo=True, limit=4, n_samples=20))["log p(mnist,svhn)"]["mean"] < 0
    with pytest.raises(InputError, match="--traverse moves one latent alone, which leaves vmf's sphere"):
        sample.main(sample.Config(tmp_path, traverse=True))
