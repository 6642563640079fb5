"""The benchmark: what it prints, that it compares the same model, and the operations it counts."""

import re

import pytest
import torch

from benchmarks import mvae as benchmark
from benchmarks.plain import LAMBDA_TEXT, Plain
from common.encoders_decoders import SplitLinearLayer
from common.objectives import MvaeElbo


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
        assert benchmark.count(module.training_step(experiment.build()), batch) == 2 * 100 * expected
