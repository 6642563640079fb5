"""The benchmark of the homoencoder: that it compares the same bound and the same support sets, and what it prints."""

import re

from tools.benchmarks import plain_vhe
from tools.benchmarks import vhe as benchmark
from tools.benchmarks.race import Times, timed

import pytest
import torch


@pytest.mark.slow
@pytest.mark.parametrize("name", benchmark.EXPERIMENTS)
def test_the_plain_bound_is_the_same(name):
    """Value by value, and its gradients, from the same draws."""
    model = benchmark.EXPERIMENTS[name].build()
    for ours in (True, False):
        batch = next(iter(benchmark.loader(name, 200, ours)))
        results = []
        for bound in (
            plain_vhe.bound,
            lambda model, batch: model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target),
        ):
            torch.manual_seed(0)
            model.zero_grad()
            value = bound(model, batch)
            value.backward()
            results.append((value, [p.grad.clone() for p in model.parameters()]))
        torch.testing.assert_close(*results)


@pytest.mark.slow
def test_it_prints_its_ratios(capsys, monkeypatch):
    def in_this_process(makers, rounds):
        return {name: Times([timed(make())], 0.0) for name, make in makers.items()}

    monkeypatch.setattr(benchmark, "race", in_this_process)
    few = {name: e._replace(n_steps=1) for name, e in benchmark.EXPERIMENTS.items()}
    monkeypatch.setattr(benchmark, "EXPERIMENTS", few)
    benchmark.main(benchmark.Config(passes=2, examples=100, rounds=2))
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (.*?) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| .* to [\d.]+ \|$", out, re.M)
    assert len(rows) == 4
    for _, plain, ours, ratio in rows:
        plain, ours = (int(rate.replace(",", "")) for rate in (plain, ours))
        assert float(ratio) == pytest.approx(ours / plain, rel=0.05, abs=0.01)
