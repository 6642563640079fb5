"""The benchmark: what it prints, that it compares the same model, and the operations it counts."""

import re
import sys
import time
from functools import partial
from importlib.util import find_spec

from common.encoders_decoders import SplitLinearLayer
from common.execution import weighted
from common.objectives import DregIwaeElbo, MvaeElbo
from reference import mvae
from tests.helpers.experts import draw_one_by_one
from tests.helpers.scripts import ROOT
from tools.benchmarks import __main__ as benchmark
from tools.benchmarks import plain, plain_mmvae
from tools.benchmarks.experiments import EXPERIMENTS, our_turn, plain_turn
from tools.benchmarks.race import Times, operations, race, ratio, timed
from training.steps import Step

import pytest
import torch
from torch.distributions import Laplace, Normal


@pytest.fixture
def _raced_in_this_process(monkeypatch):
    def in_this_process(makers, rounds):
        return {name: Times([timed(make())], 0.5) for name, make in makers.items()}

    monkeypatch.setattr(benchmark, "race", in_this_process)


def sleeper(seconds):
    return partial(time.sleep, seconds)


@pytest.mark.slow
def test_a_race_takes_turns():
    times = race({"slow": partial(sleeper, 0.04), "fast": partial(sleeper, 0.01)}, rounds=4)
    assert times["slow"].median >= 0.04 and times["fast"].median >= 0.01
    assert all(len(of.seconds) == 3 and 0.1 < of.memory < 5 for of in times.values())
    median, least, most = ratio(times["slow"], times["fast"])
    assert 1 < least <= median <= most


def number(text):
    return float(text.split()[0].rstrip("%").replace(",", ""))


@pytest.mark.slow
@pytest.mark.usefixtures("_raced_in_this_process")
def test_the_benchmark_prints_its_ratios(capsys, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "mnist_svhn", EXPERIMENTS["mnist_svhn"]._replace(batch_size=8, warm_up=0))
    monkeypatch.setattr(weighted, "MAX_SHARE", -1)  # the samples of one example come first, whatever their weights
    monkeypatch.setattr(
        benchmark,
        "start_up",
        lambda command, folder: {"--help": 1.5, benchmark.FIRST_STEP: 2.5, "import torch": 1.0}[command[2]],
    )
    benchmark.main(benchmark.Config(("mnist", "mnist_svhn"), rounds=2, images=2, n_samples=100))
    out = capsys.readouterr().out
    for name, counted in (("mnist", "1.47"), ("mnist_svhn", "0.96")):
        step, others = (line.split(" | ") for line in re.findall(rf"^\| ({name} \| .*) \|$", out, re.M))
        _, plain, loaded, package, ours, of_plain, counts, of_loaded, _, limit, reached, *_ = step
        assert number(of_plain) == pytest.approx(number(ours) / number(plain), rel=0.02)
        assert number(of_loaded) == pytest.approx(number(ours) / number(loaded), rel=0.02)
        assert number(reached) == pytest.approx(100 * number(ours) / number(limit), abs=1)
        assert counts == counted and (package != "-") == bool(find_spec("multivae"))
        _, theirs, evaluated, share, sampled, *seconds = others
        assert seconds == ["1.5", "2.5"] and (theirs == "-") == (name == "mnist")
        assert number(evaluated) > 0 and number(sampled) > 0 and 0 < number(share) <= 100


def test_the_first_step_is_the_last_that_is_timed(monkeypatch, tmp_path):
    """Whatever the form of the call: a captured step has options."""
    steps = []
    monkeypatch.setattr(Step, "__call__", lambda *args, **options: steps.append(options))
    monkeypatch.setattr(sys, "argv", ["-c", "--demo", "--limit", "200", "--save-dir", str(tmp_path)])
    monkeypatch.chdir(ROOT / "mnist")
    with pytest.raises(SystemExit, match="^$"):
        exec(benchmark.FIRST_STEP, {})
    assert len(steps) == 1
    with pytest.raises(SystemExit, match="^$"):
        Step.__call__(None, every_row=True)
    assert steps[1] == {"every_row": True}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_originals_loader_gives_the_batches_of_the_model(name):
    """They have the same shapes and types, and the same pictures where these were not compressed."""
    experiment = EXPERIMENTS[name]
    examples = experiment.examples(3)
    (batch,) = experiment.files.loader(examples)(3)
    expected = examples[:].modalities
    assert set(batch.modalities) == set(expected) == set(experiment.build().modalities)
    for name, x in expected.items():
        found = batch.modalities[name]
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        order = [row.tolist() for row in found.flatten(1)] if found.dim() > 1 else found.tolist()
        if experiment.files.size is None or not x.is_floating_point():
            assert sorted(order) == sorted(row.tolist() for row in (x.flatten(1) if x.dim() > 1 else x))


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "multimnist"])
def test_the_plain_implementation_is_the_same_model(name):
    """Its loss is the objective's, in expectation; with narrow posteriors and without dropout, value by value."""
    experiment = EXPERIMENTS[name]
    model = experiment.build().eval()
    for heads in model.encoder.modules():
        if isinstance(heads, SplitLinearLayer):
            torch.nn.init.zeros_(heads.linear.weight[64:])
            torch.nn.init.constant_(heads.linear.bias[64:], -10)
    batch = experiment.examples(5)[:]
    theirs = plain.plain_model(model).eval()
    assert all(x.is_contiguous() for x in theirs.parameters())
    with torch.no_grad():
        loss = mvae.loss(theirs, batch.modalities, beta=0.5)
        ours = MvaeElbo(model, weights=mvae.LAMBDA)(batch, beta=0.5)
    torch.testing.assert_close(loss, ours, rtol=1e-3, atol=0)


def test_operations_are_those_of_products_and_convolutions(monkeypatch):
    """Counted by hand for FashionMNIST: multiply-adds of an example."""
    image_encoder = [
        64 * 14**2 * 16,
        128 * 7**2 * 64 * 16 + 6272 * 512 + 512 * 128,
    ]
    image_decoder = 64 * 512 + 512 * 6272 + 128 * 7**2 * 64 * 16 + 64 * 14**2 * 16
    text_encoder, text_decoder = 512 * 512 + 512 * 128, 64 * 512 + 2 * 512**2 + 512 * 10
    encoded = 2 * image_encoder[0] + 3 * image_encoder[1]  # the first layer has no gradient of its input
    theirs = 2 * (encoded + 3 * text_encoder) + (2 * 3 + 1) * (image_decoder + text_decoder)
    ours = encoded + 3 * text_encoder / 10 + 2 * 3 * (image_decoder + text_decoder)  # ten classes for a hundred labels
    ours += 2 * 3 * 2 * 2 * 64  # three products of two experts, means and precisions of 64 latents
    experiment = EXPERIMENTS["fashionmnist"]._replace(steps=1)
    monkeypatch.setitem(EXPERIMENTS, "fashionmnist", experiment)
    assert operations(plain_turn("fashionmnist")) == 2 * 100 * theirs
    turn = our_turn("fashionmnist")
    turn()  # the first step looks at the sizes of the layers
    assert operations(turn) == 2 * 100 * ours


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "families"), [("cub, images", (Laplace, Normal)), ("cub, features", (Normal, Normal))]
)
def test_the_plain_mmvae_is_the_same_model(experiment, families):
    """Value by value where the samples are the same; tests/reference has mnist_svhn."""
    model = EXPERIMENTS[experiment].build().double().eval()
    theirs, x = plain_mmvae.plain_model(model).eval(), EXPERIMENTS[experiment].examples(3)[:].modalities
    x = {name: x.double() if x.is_floating_point() else x for name, x in x.items()}
    objective = DregIwaeElbo(model, 4, looser=True, gradient="stop-all")

    torch.manual_seed(0)
    loss, bound = plain_mmvae.dreg_looser(theirs, x, 4, plain_mmvae.LAMBDA)
    loss.backward()
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        draw_one_by_one(patch, *families)
        ours, _ = objective.loss(x)
    ours.backward()
    torch.testing.assert_close(bound, -ours)
    for q, p in zip(theirs.encoder.parameters(), model.encoder.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["celeba", "celeba19", "vision"])
def test_the_plain_implementation_of_faces_is_the_same_model(name):
    """With narrow posteriors and without dropout and batch norm's batches, value by value."""
    model, batch = EXPERIMENTS[name].build().eval(), EXPERIMENTS[name].examples(3)[:]
    n, k = model.prior().event_shape[0], int(name == "celeba19")
    for module in model.encoder.modules():
        heads = getattr(module, "heads", None) or getattr(module, "linear", None)
        if heads is not None:
            heads.bias.data.view(-1, 2 * n)[:, n:] = -13  # log variances
    ours = MvaeElbo(model, k, generator=torch.Generator().manual_seed(5))(batch, beta=0.5)
    plain_model = plain.plain_model(model).eval()
    torch.manual_seed(5)
    theirs = plain.faces_loss(plain_model, batch.modalities, 0.5, k)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=0)
