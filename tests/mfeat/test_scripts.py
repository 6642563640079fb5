"""The scripts of UCI Multiple Features on a model of the demo's tables."""

import csv
import json
import math
import re
from types import SimpleNamespace

from common.checkpoints import load_config, load_model
from common.data import Examples
from common.data.scales import scales_of
from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from common.io import save_tensors
from common.likelihoods import CategoricalLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from mfeat import analyse, loglike, sample, train
from mfeat.data import TABLES, load, with_missing
from mfeat.model import SCALE, build
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.runs import metrics
from tests.helpers.scripts import call

import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

SMALL = ("--demo", "--limit", 60, "--epochs", 1, "--n-latents", 4)


@pytest.fixture(scope="module")
def of_means(tmp_path_factory):
    """A model that decodes every z to the means of the tables, and to the digit 7."""
    path = tmp_path_factory.mktemp("means") / "model.pt"
    scales = scales_of(load("train", data_config(demo=True)), TABLES, "")
    config = {"model": "mvae", "n_latents": 2, "scales": scales, "demo": True}
    model = build(SimpleNamespace(**config))
    for name, network in model.decoder.items():
        nn.init.zeros_(network[-1].weight)
        network[-1].bias.data = 9.0 * torch.eye(10)[7] if name == "digit" else torch.zeros_like(network[-1].bias)
    save_tensors(path, {"experiment": "mfeat", "config": config, "state_dict": model.state_dict()})
    return path


def test_a_model_learns_to_predict_what_it_is_not_given(tmp_path):
    call(train, "--demo", "--epochs", 5, "--model", "mopoe-published", "--save-dir", tmp_path)
    found = call(analyse, tmp_path, "--demo", "--n-samples", 10, "--json", tmp_path / "out.json")
    accuracy = {given: x["complete"] for given, x in found["accuracy"].items()}
    assert accuracy["6 given"] > 0.85 and accuracy["fou"] > 0.55 and accuracy["1 given"] > 0.55
    assert all(0.4 < x["mean"] < 1 for given, x in found["r_squared"].items() if given in ("fac", "kar", "all others"))
    assert found["accuracy"]["1 given"]["a third missing"] < accuracy["1 given"] - 0.02
    assert found["r_squared_missing"]["all others"]["mean"] < found["r_squared"]["all others"]["mean"]
    assert found["rmse"]["mean"]["model"] < 0.8 < 0.95 < found["rmse"]["mean"]["column mean"] < 1.05
    assert len(found["accuracy"]) == 63 + 6
    written = json.loads((tmp_path / "out.json").read_text())
    assert {name: written[name] for name in found} == found and written["n_examples"] == 360


def test_the_runs_config_has_the_means_of_the_cells_that_are_left(tmp_path):
    for name, options in (("all", ()), ("some", ("--missing", 0.5)), ("same", ("--missing", 0.5))):
        call(train, *SMALL, *options, "--save-dir", tmp_path / name)
    configs = {name: load_config(tmp_path / name) for name in ("all", "some", "same")}
    examples = load("train", data_config(demo=True, limit=60))
    assert configs["all"]["scales"] == scales_of(examples, TABLES, "")
    assert (
        configs["some"]["scales"] == scales_of(with_missing(examples, 0.5, 0), TABLES, "") != configs["all"]["scales"]
    )
    assert metrics(tmp_path / "some") == metrics(tmp_path / "same") != metrics(tmp_path / "all")
    call(train, *SMALL, "--resume", "--epochs", 2, "--missing", 0.5, "--save-dir", tmp_path / "same")
    assert metrics(tmp_path / "same")[:1] == metrics(tmp_path / "some")
    call(train, *SMALL, "--pre-trained", tmp_path / "some", "--missing", 0, "--save-dir", tmp_path / "on")
    assert load_config(tmp_path / "on")["scales"] == configs["some"]["scales"], "its networks know these units"


def test_samples_are_in_the_units_of_the_data(of_means, tmp_path, capsys):
    call(sample, of_means, "--n-samples", 3, "--out-dir", tmp_path)
    call(sample, of_means, "--n-samples", 2, "--given", "fou", "digit", "--demo", "--out-dir", tmp_path)
    assert capsys.readouterr().out.split() == [
        str(tmp_path / f"{name}.{kind}") for name in ("prior", "from_fou_digit") for kind in ("csv", "png")
    ]
    scales = load_config(of_means)["scales"]
    for name, n in (("prior", 3), ("from_fou_digit", 2)):
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        assert len(rows) == n and (tmp_path / f"{name}.png").exists()
        for row in rows:
            assert row.pop("digit") == "7"
            expected = {f"{table}_{i}": mean for table, x in scales.items() for i, (mean, _) in enumerate(x)}
            assert {title: float(x) for title, x in row.items()} == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_pix_is_a_picture():
    pix = torch.zeros(2, 240)
    pix[1, 15 + 3] = 3.0  # in the second row
    images, captions = sample.pictures({"pix": pix, "digit": torch.tensor([4, 0])})
    assert images.shape == (2, 1, 16, 15) and images[1, 0, 1, 3] == 0.5 == images.sum() and captions == ["4", "0"]


def test_a_sample_is_given_what_is_named(trained, tmp_path):
    run, read = trained("mfeat"), {}
    for given in (("fou",), ("kar",), ("fou", "kar")):
        call(sample, run, "--given", *given, "--demo", "--limit", 5, "--out-dir", tmp_path)
        read[given] = (tmp_path / f"from_{'_'.join(given)}.csv").read_text()
    assert len(set(read.values())) == 3 and all(text.count("\n") == 6 for text in read.values())


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, sample, trained("mfeat"), *options)


def test_log_likelihoods_are_those_of_standardised_values(of_means, tmp_path):
    found = call(loglike, of_means, "--demo", "--limit", 20, "--n-samples", 3, "--target", "digit", "--given", "mor")
    scales = load_config(of_means)["scales"]
    x = load("test", data_config(demo=True, limit=20)).modalities
    for name in TABLES:
        mean, deviation = torch.tensor(scales[name], dtype=torch.float64).T
        z = (x[name].double() - mean) / deviation
        log_p = (-0.5 * (z / SCALE).square() - math.log(SCALE * math.sqrt(2 * math.pi))).sum(dim=1).mean().item()
        # the weights p(z) / q(z|x) average to 1, so that these are estimates of 0 to be added
        assert found[f"log p({name})"]["mean"] == pytest.approx(log_p, abs=3)
    of_digit = torch.log_softmax(9.0 * torch.eye(10)[7], 0)[x["digit"]].mean().item()
    assert found["log p(digit|mor)"]["mean"] == pytest.approx(of_digit, abs=3)


def test_log_likelihoods_have_proposals_of_their_own(of_means, monkeypatch):
    asked, estimates = [], loglike.importance_estimates

    def recorded(model, batch, targets, given, **sampling):
        asked.append((*targets, given))
        return estimates(model, batch, targets, given, **sampling)

    monkeypatch.setattr(loglike, "importance_estimates", recorded)
    call(loglike, of_means, "--demo", "--limit", 2, "--n-samples", 2)
    assert asked == [(names, names) for names in ((*TABLES, "digit"), *((name,) for name in (*TABLES, "digit")))]


def linear_model():
    """Each of a and b tells t, which is z; a is decoded to (z, 0), b to 2 z, and the digit is 1 where z > 0."""
    encoder = {"a": SplitLinearLayer(2, (1, 1)), "b": SplitLinearLayer(1, (1, 1))}
    encoder["digit"] = nn.Sequential(nn.Embedding(2, 1), SplitLinearLayer(1, (1, 1)))
    decoder = {"a": nn.Linear(1, 2), "b": nn.Linear(1, 1), "digit": nn.Linear(1, 2)}
    weights = {"a": [[1.0], [0.0]], "b": [[2.0]], "digit": [[-9.0], [9.0]]}
    for name, network in decoder.items():
        network.weight.data, network.bias.data = torch.tensor(weights[name]), torch.zeros(len(weights[name]))
    for name, weight in {"a": [[1.0, 0.0], [0.0, 0.0]], "b": [[0.5], [0.0]]}.items():
        linear = encoder[name].linear
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor([0.0, -20.0])
    tables = {name: SphericalGaussianLikelihood(1.0) for name in "ab"}
    likelihood = GroupedLikelihood(**tables, digit=CategoricalLikelihood())
    return VAE("poe", encoder, decoder, likelihood, 1).eval()


@pytest.fixture
def two_tables(monkeypatch):
    """80 examples: t and noise in a, 2 t and an error in b, and whether t > 0, of which a quarter is wrong."""
    monkeypatch.setattr(analyse, "TABLES", {"a": 2, "b": 1})
    monkeypatch.setattr(analyse, "VIEWS", ("a", "b"))
    monkeypatch.setattr(analyse, "BATCH_SIZE", 30)
    t, noise, error = torch.randn(3, 80)
    digit = torch.where(torch.arange(80) % 4 == 0, t < 0, t > 0).long()
    return Examples({"a": torch.stack([t, noise], dim=1), "b": (2 * t + error)[:, None], "digit": digit})


def test_the_figures_of_an_analysis_are_those_of_a_linear_model(two_tables):
    model, (a, b, digit) = linear_model(), two_tables.modalities.values()
    z = {"a": a[:, :1], "b": b / 2, "a,b": (a[:, :1] + b / 2) / 2}  # their experts are equally narrow
    right = {given: ((x[:, 0] > 0) == (digit == 1)).double().mean().item() for given, x in z.items()}
    sizes = {"1 given": (right["a"] + right["b"]) / 2, "2 given": right["a,b"]}
    assert analyse.accuracies(model, two_tables, 2) == pytest.approx(right | sizes)
    assert right["a"] == 0.75 != right["b"]
    expected = {}
    for given, x in (("a", z["a"]), ("b", z["b"])):
        decoded = torch.cat([x, torch.zeros(80, 1)], dim=1), 2 * x
        scores = [r2_score(y, p, multioutput="variance_weighted") for y, p in zip((a, b), decoded, strict=True)]
        expected[given] = dict(zip("ab", scores, strict=True))
    expected["all others"] = {"a": expected["b"]["a"], "b": expected["a"]["b"]}
    expected["all others"]["mean"] = (expected["b"]["a"] + expected["a"]["b"]) / 2
    expected["a"]["mean"], expected["b"]["mean"] = expected["a"]["b"], expected["b"]["a"]
    found = analyse.r_squared(model, two_tables, two_tables, 2)
    assert found == {given: pytest.approx(row, abs=1e-3) for given, row in expected.items()}


def test_missing_cells_are_predicted_from_those_that_are_there(two_tables):
    model, a, b = linear_model(), two_tables.modalities["a"].clone(), two_tables.modalities["b"].clone()
    t, z_of_b = a[:, 0].clone(), b[:, 0] / 2
    b[:40] = torch.nan  # a tells the first 20
    a[20:60, 0] = torch.nan  # a reads 0 there
    lacking = Examples({"a": a, "b": b, "digit": two_tables.modalities["digit"]})
    found = analyse.errors_of_missing(model, lacking, two_tables, 2)
    # given both, the product of a's expert, at 0, and of b's lies between them
    z = torch.cat([t[:20], torch.zeros(20), z_of_b[40:60] / 2])
    for name, truth, guess in (("a", t[20:60], z[20:60]), ("b", 2 * z_of_b[:40], 2 * z[:40])):
        both = {"model": truth - guess, "column mean": truth}
        expected = {by: x.square().mean().sqrt().item() for by, x in both.items()}
        assert found[name] == pytest.approx(expected, abs=1e-3), name
    means = {by: (found["a"][by] + found["b"][by]) / 2 for by in ("model", "column mean")}
    assert found["mean"] == pytest.approx(means)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("a", "R^2 of a needs test examples that differ in it: raise --limit"),
        ("b", "no cell of b was left out: raise --limit"),
    ],
)
def test_figures_without_a_value_are_refused(two_tables, changed, message):
    full = dict(two_tables.modalities)
    lacking = Examples(full | {name: full[name].masked_fill(full[name] > 1, torch.nan) for name in "ab"})
    analyse.check_scorable(two_tables, lacking)
    if changed == "a":
        two_tables = Examples(full | {"a": torch.ones_like(full["a"])})
    else:
        lacking = Examples(lacking.modalities | {"b": full["b"]})
    with pytest.raises(InputError, match=re.escape(message)):
        analyse.check_scorable(two_tables, lacking)


def test_predictions_are_means_over_draws():
    """Of a wide posterior, whose mean is 0: the mean of |z| is not 0, nor is a class's mean probability that at 0."""
    model = linear_model()
    model.encoder["b"].linear.bias.data[1] = math.log(4.0)  # with the prior: mean t * 0.2, variance 0.8
    model.decoder["b"] = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    model.decoder["b"][0].weight.data.fill_(1.0)
    x = analyse.predicted(model, Examples({"b": torch.zeros(1, 1)}), ("b",), ("b",), 20_000)["b"].item()
    assert x == pytest.approx(math.sqrt(0.8 / (2 * math.pi)), rel=0.03)


def test_the_model_has_the_columns_of_its_training_tables(trained):
    model = load_model(trained("mfeat"))
    config = load_config(trained("mfeat"))
    assert model.modalities == (*TABLES, "digit")
    sizes = {name: p.event_shape for name, p in model.decode(torch.zeros(1, config["n_latents"])).items()}
    assert sizes == {name: (len(x),) for name, x in config["scales"].items()} | {"digit": ()}
