"""The benchmark: what it prints, that it compares the same model, and the operations it counts."""

import re
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Laplace, Normal

from benchmarks import faces, mmvae, pixels, plain_faces, plain_mmvae
from benchmarks import mvae as benchmark
from benchmarks.plain import LAMBDA_TEXT, Plain
from benchmarks.race import Result, operations, race, timed
from common import importance
from common.data import Batch
from common.encoders_decoders import SplitLinearLayer
from common.objectives import DregElbo, MvaeElbo
from mnist.part_models import build as build_parts
from mnist_svhn.loglike import estimates


@pytest.fixture
def _raced_in_this_process(monkeypatch):
    def in_this_process(makers, rounds):
        seconds = [timed(make()) for make in makers]
        return Result(seconds, (seconds[0] / seconds[1],) * 3)

    monkeypatch.setattr(benchmark, "race", in_this_process)
    monkeypatch.setattr(mmvae, "race", in_this_process)
    monkeypatch.setattr(pixels, "race", in_this_process)
    monkeypatch.setattr(faces, "race", in_this_process)


def sleeper(seconds):
    return partial(time.sleep, seconds)


@pytest.mark.slow
def test_a_race_takes_turns():
    seconds, (ratio, least, most) = race([partial(sleeper, 0.04), partial(sleeper, 0.01)], rounds=4)
    assert seconds[0] >= 0.04 and seconds[1] >= 0.01
    assert least <= ratio <= most and ratio > 1


@pytest.mark.slow
@pytest.mark.usefixtures("_raced_in_this_process")
def test_the_benchmark_prints_its_ratios(capsys):
    benchmark.main(benchmark.Config(("mnist",), batches=1, rounds=2, images=2, n_samples=10))
    out = capsys.readouterr().out
    for row in ("training step", "end to end"):
        plain, ours, ratio, operations = re.search(
            rf"\| mnist, {row} \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| .* \| ([\d.]+) \| \d+ \|", out
        ).groups()
        assert float(ratio) == pytest.approx(int(ours.replace(",", "")) / int(plain.replace(",", "")), rel=0.05)
        assert operations == "1.47"
    assert re.search(r"\| mnist \| [\d.]+ \| \d+ \|", out)


@pytest.mark.parametrize("experiment", benchmark.EXPERIMENTS.values(), ids=benchmark.EXPERIMENTS)
def test_the_plain_implementation_is_the_same_model(experiment):
    """Its loss is the objective's, in expectation; with narrow posteriors and without dropout, value by value."""
    model = experiment.build().eval()
    for heads in model.encoder.modules():
        if isinstance(heads, SplitLinearLayer):
            torch.nn.init.zeros_(heads.linear.weight[64:])
            torch.nn.init.constant_(heads.linear.bias[64:], -10)
    batch = experiment.examples(5)[:]
    plain = Plain(model).eval()
    assert all(x.is_contiguous() for x in plain.parameters())
    with torch.no_grad():
        loss = plain.loss(**batch.modalities, beta=0.5)
        ours = MvaeElbo(model, weights={"text": LAMBDA_TEXT})(batch, beta=0.5)
    torch.testing.assert_close(loss, ours, rtol=1e-3, atol=0)


def test_operations_are_those_of_products_and_convolutions():
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
    experiment = benchmark.EXPERIMENTS["fashionmnist"]
    batch = experiment.examples(100)[:]
    for module, expected in ((benchmark.plain, theirs), (benchmark, ours)):
        assert operations(partial(module.training_step(experiment.build()), batch)) == 2 * 100 * expected


@pytest.mark.slow
@pytest.mark.usefixtures("_raced_in_this_process")
def test_mmvaes_benchmark_prints_its_ratios(capsys):
    mmvae.main(mmvae.Config(K=2, batch_size=4, pairs=2, n_samples=3, rounds=2))
    out = capsys.readouterr().out
    for row in ("DReG step, K = 2, batch 4, fp32", "DReG step, K = 2, batch 4, bf16", "log-likelihoods, 3 samples"):
        plain, ours, ratio, operations = re.search(
            rf"\| {row} \| ([\d.,]+) \| ([\d.,]+) \| ([\d.]+) \| .* \| ([\d.]+) \|", out
        ).groups()
        plain, ours = (float(rate.replace(",", "")) for rate in (plain, ours))
        assert float(ratio) == pytest.approx(ours / plain, rel=0.05, abs=0.02)
        # ours decodes all samples once, theirs twice; encoders count here, with few samples
        assert float(operations) == pytest.approx(1.0 if "DReG" in row else 1.87, abs=0.005)


@pytest.mark.parametrize(
    ("experiment", "families"),
    [("mnist_svhn", (Laplace, Laplace)), ("images", (Laplace, Normal)), ("features", (Normal, Normal))],
)
def test_the_plain_mmvae_is_the_same_model(experiment, families):
    """Value by value where the samples are the same."""
    model = mmvae.model(experiment).double().eval()
    plain, x = plain_mmvae.Plain(model, experiment).eval(), mmvae.pairs(experiment, 3)[:].modalities
    x = {name: x.double() if x.is_floating_point() else x for name, x in x.items()}
    objective = DregElbo(model, 4, looser=True, gradient="stop-all")

    def one_by_one(q, n):
        experts = q.component_distribution.base_dist
        return torch.stack([f(experts.loc[:, t], experts.scale[:, t]).rsample((n,)) for t, f in enumerate(families)])

    torch.manual_seed(0)
    loss = plain.dreg_looser(x, 4) / 3
    loss.backward()
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "sample_components", one_by_one)
        ours, _ = objective.loss(x)
    ours.backward()
    torch.testing.assert_close(loss, ours)
    for theirs, p in zip(plain.encoder.parameters(), model.encoder.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, p.grad)


@pytest.mark.slow
def test_the_plain_likelihoods_are_the_same():
    torch.manual_seed(0)
    model = mmvae.model("mnist_svhn").eval()
    x = mmvae.pairs("mnist_svhn", 2)[:].modalities
    theirs = plain_mmvae.Plain(model, "mnist_svhn").eval().likelihoods(x, 1000)
    ours = estimates(model, Batch(x), 1000)
    for mine, its in (("svhn, z from q(z|mnist)", "mnist, svhn"), ("mnist, z from q(z|mnist)", "mnist, mnist")):
        target, source = mine.split(", ")
        torch.testing.assert_close(ours[f"log p({target}), {source}"], theirs[its], rtol=0, atol=3)
    torch.testing.assert_close(ours["log p(mnist,svhn)"], theirs["joint"], rtol=0, atol=3)


def test_the_loop_over_pixels_computes_the_same_bound():
    model = build_parts(SimpleNamespace(**pixels.OPTIONS, hidden=6)).double()
    x = torch.rand(3, 784, 1, dtype=torch.float64)
    values = []
    for bound in (pixels.loop, pixels.vectorised):
        torch.manual_seed(0)
        values.append(bound(model, x))
    torch.testing.assert_close(*values)


@pytest.mark.slow
@pytest.mark.usefixtures("_raced_in_this_process")
def test_the_benchmark_of_pixels_prints_its_ratios(capsys):
    pixels.main(pixels.Config(batch_sizes=(2,), hidden=(4,), posteriors=10, rounds=2))
    out = capsys.readouterr().out
    assert re.search(r"\| batch 2, width 4 \| [\d,]+ \| [\d,]+ \| [\d.]+ \| ", out)
    assert re.search(r"\| 10 \| [\d,]+ \| [\d,]+ \| [\d.]+ \| ", out)


@pytest.mark.slow
@pytest.mark.usefixtures("_raced_in_this_process")
def test_the_benchmark_of_faces_prints_its_ratios(capsys, monkeypatch):
    monkeypatch.setattr(faces, "EXPERIMENTS", {name: e._replace(batch_size=4) for name, e in faces.EXPERIMENTS.items()})
    faces.main(faces.Config(("vision",), rounds=2, images=20))
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (vision.*?) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| .* \| ([\d.]+) \|$", out, re.M)
    assert [(name, operations) for name, *_, operations in rows] == [
        ("vision", "1.89"),
        ("vision, all six scored in each plain term", "2.98"),
    ]
    assert re.search(r"a random subset of 19: \d+ us; by search among 2\^19: [\d.]+ ms", out)
    assert re.search(r"cache: [\d,]+ images of 178 x 218 a second, [\d.]+ minutes for 202,599", out)


@pytest.mark.parametrize("name", ["celeba", "celeba19", "vision"])
def test_the_plain_implementation_of_faces_is_the_same_model(name):
    """With narrow posteriors and without dropout and batch norm's batches, value by value."""
    experiment = faces.EXPERIMENTS[name]
    n, k = experiment.n_latents, experiment.n_subsets
    model, batch = experiment.model(name).eval(), faces.batch(name, 3)
    for module in model.encoder.modules():
        heads = getattr(module, "heads", None) or getattr(module, "linear", None)
        if heads is not None:
            heads.bias.data.view(-1, 2 * n)[:, n:] = -13  # log variances
    plain = plain_faces.PlainFaces(model).eval()
    ours = MvaeElbo(model, k, generator=torch.Generator().manual_seed(5))(batch, beta=0.5)
    theirs = plain.loss(batch, 0.5, k, torch.Generator().manual_seed(5))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=0)


def test_a_subset_is_found_by_search():
    subsets = plain_faces.pool(5)
    assert subsets.shape == (32, 5) and len(subsets.unique(dim=0)) == 32
    assert {int(plain_faces.drawn(subsets).sum()) for _ in range(50)} == {2, 3, 4}
