"""The scripts of mnist_svhn, on the demo data."""

from functools import partial

from common.checkpoints import LAST, load, load_model
from common.data import Batch, Examples
from common.errors import InputError
from common.estimators import joint_and_each, weighted_joint
from common.execution.score import DECODED_AT_ONCE
from common.models.objectives import make_objective
from common.objectives import DregIwaeElbo, IwaeElbo, MmvaeElbo
from mnist_svhn import analyse, loglike, sample, train
from mnist_svhn.data import load_train
from mnist_svhn.model import build
from mnist_svhn.options import TrainingPairOptions
from reports.sampling import STEPS, Shown, traversals
from tests.helpers.data_config import data_config
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw, exact_log_p
from tests.helpers.scripts import call, run_script
from tests.repository.test_evaluations import untrained
from training.command_line import parse
from training.options import as_json

import pytest
import torch
from torch.distributions import Laplace


def config(save_dir="unused", **changes):
    small = {"demo": True, "limit": 96, "epochs": 1, "batch_size": 32, "K": 2}
    return train.Config(save_dir=save_dir, **small | changes)


def saved(path, **options):
    """A file of an untrained model."""
    given = config(**options)
    return untrained(train.experiment(given), given, path / "model.pt")


def test_the_papers_settings_are_the_defaults():
    defaults = train.Config()
    assert defaults.learn_prior and defaults.llik_scaling == 0
    model = build(defaults)
    objective = make_objective(defaults.obj, model, defaults)
    assert (type(objective), objective.K, objective.looser, objective.gradient) == (DregIwaeElbo, 30, True, "exact")
    assert objective.weights == {"mnist": pytest.approx(3072 / 784), "svhn": 1.0}
    assert (defaults.batch_size, defaults.epochs, defaults.lr, defaults.n_latents) == (128, 30, 1e-3, 20)
    assert isinstance(model.prior().base_dist, Laplace) and model.prior.scale.requires_grad
    p = model.decode(model.prior().sample((2,)))
    assert all(isinstance(q.base_dist, Laplace) and (q.base_dist.scale == 0.75).all() for q in p.values())
    assert parse(train.Config, args=["--model", "mnist_svhn"]).model == "mmvae", "the authors' name"


def test_validation_has_images_of_its_own():
    training, valid = load_train(data_config("", TrainingPairOptions(matchings=3), demo=True))
    for name in ("mnist", "svhn"):
        a, b = ({image.numpy().tobytes() for image in part.modalities[name]} for part in (training, valid))
        assert len(a) > 500 and len(b) > 100 and len(a & b) <= 0.01 * len(b)
    assert (valid.rows["mnist"].unique(return_counts=True)[1] == 1).all(), "one matching"
    assert load_train(data_config("", TrainingPairOptions(), demo=True, valid=0))[1] is None


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
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


def test_the_papers_figure_is_weighed_as_in_training():
    model, weights, scales = with_fusion("moe", 2)
    for expert in model.encoder.values():
        expert.precision.data *= 0.05
    inputs = draw(weights, scales, 4)
    model.weights["a"] = 3.0
    with torch.no_grad():
        weighed, plain = (
            IwaeElbo(model, K=20_000, weights=given).bound(inputs).value for given in (None, {"a": 1.0, "b": 1.0})
        )
    torch.testing.assert_close(weighted_joint(model, inputs, 20_000, at_once=1000), weighed, rtol=0, atol=0.1)
    torch.testing.assert_close(plain, exact_log_p(weights, scales, inputs, ("a", "b")), rtol=0, atol=0.1)
    assert ((weighed - plain).abs() > 0.2).any()


def test_the_papers_figure_is_refused_where_latents_come_from_auxiliary_priors(tmp_path):
    message = "--paper needs importance weights of all latents, those of .* leave out its auxiliary priors"
    with pytest.raises(InputError, match=message):
        call(loglike, saved(tmp_path, model="mmvae+", K=1), "--demo", "--limit", 2, "--paper")


def test_judges_are_told_apart_by_what_they_judge(monkeypatch, tmp_path):
    files = []
    monkeypatch.setattr(analyse, "judge", lambda *args: files.append(args[-1] and args[-1].name))
    for options in ({}, {"svhn": "synthetic"}, {"max_per_class": 1}):
        given = analyse.Config(tmp_path, data_dir=tmp_path, **options)
        analyse.judges(given, Examples({"mnist": torch.zeros(1)}), torch.zeros(1, 1), build(config(n_latents=2)))
    kinds = ("", "_synthetic", "_pairs_0_1")
    assert files == [f"digits_of_{name}{kind}.pt" for kind in kinds for name in ("mnist", "svhn")]


def test_what_a_model_lacks_is_no_condition(tmp_path):
    with pytest.raises(InputError, match="this model has no mnist: use --given svhn"):
        call(sample, saved(tmp_path, model="svhn"), "--demo", "--given", "mnist")
    with pytest.raises(InputError, match="--traverse moves one latent alone, which leaves vmf's sphere"):
        call(sample, saved(tmp_path, prior_and_posterior="vmf"), "--traverse")


def test_traversals_move_one_latent_at_a_time(tmp_path, monkeypatch):
    model, seen = build(config(n_latents=3)).eval(), []

    def decode(z, *names, original=model.decode):
        seen.append(z.view(3, -1, 3))
        return original(z, *names)

    monkeypatch.setattr(model, "decode", decode)
    with torch.no_grad():
        model.prior.scale += torch.tensor([0.0, 1.0, -1.0])
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
    parse(train.Config, args=["--obj", "elbo"]).check()
    assert as_json(train.Config())["looser"] is None


def test_a_run_goes_on_from_another_ones_weights_and_options(tmp_path):
    path, seen = saved(tmp_path, n_latents=3, K=3, lr=0.5e-3, beta=0.5), []
    before = load_model(path).state_dict()
    args = ["--pre-trained", path, "--save-dir", tmp_path / "second", "--lr", "1e-9", "--K", "2"]
    run_script(train, args, lambda given: seen.append(given) or train.main(given))
    (second,) = seen
    assert (second.n_latents, second.K, second.lr, second.beta, second.demo) == (3, 2, 1e-9, 0.5, True)
    for name, x in load_model(tmp_path / "second").state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "args", "second"),
    [
        ({"K": 3, "looser": False}, ["--obj", "elbo", "--K", "1"], (MmvaeElbo, None, None)),
        ({"obj": "elbo", "K": None}, ["--obj", "dreg"], (DregIwaeElbo, 5, True)),
        ({"K": 3, "looser": False}, ["--obj", "iwae"], (IwaeElbo, 3, False)),
        ({"K": 3, "looser": False}, ["--K", "4"], (DregIwaeElbo, 4, False)),
    ],
)
def test_another_objective_has_its_own_options(tmp_path, first, args, second):
    seen = []
    run_script(train, ["--pre-trained", saved(tmp_path, **first), *args], seen.append)
    objective = make_objective(seen[0].obj, build(seen[0]), seen[0])
    assert (type(objective), getattr(objective, "K", None), getattr(objective, "looser", None)) == second
    seen[0].check()


def test_another_model_has_no_private_latents_of_the_first(tmp_path):
    path, seen = saved(tmp_path, model="cmvae", K=1), []
    for args in ([], ["--model", "mmvae"]):
        run_script(train, ["--pre-trained", path, *args], seen.append)
        seen[-1].check()
    assert [(x.model, x.n_private, x.n_clusters) for x in seen] == [("cmvae", (10, 10), 40), ("mmvae", None, None)]


def test_the_authors_folder_trains_on(mmvae, tmp_path):
    args = ["--pre-trained", mmvae, "--save-dir", tmp_path, "--demo", "--limit", "40", "--K", "2", "--epochs", "1"]
    run_script(train, args)
    assert load(tmp_path / LAST)["config"]["llik_scaling"] == 0


def test_likelihoods_at_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loglike, "Config", partial(loglike.Config, n_samples=5))
    train.main(config(tmp_path, logp=True, model="svhn", limit=20))
    assert "| log p(svhn) |" in capsys.readouterr().out
