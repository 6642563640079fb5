"""The benchmark of the homoencoder: that it compares the same bound and the same support sets, and what it prints."""

import random
import re
from collections import Counter

import pytest
import torch

from tools.benchmarks import plain_vhe
from tools.benchmarks import vhe as benchmark
from tools.benchmarks.race import Times, timed


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


@pytest.mark.parametrize("ours", [True, False])
def test_both_draw_support_sets_of_the_same_groups(ours):
    """Each example once; others of its class equally often, with k of them, and itself for z."""
    random.seed(0)
    n = 200
    loader = benchmark.loader("numbers", n, ours)
    data = torch.arange(n, dtype=torch.float32)[:, None]
    if ours:
        loader.examples.data = data
    else:
        loader.data = data
    drawn, targets = Counter(), Counter()
    for _ in range(40):
        for batch in loader:
            assert batch.inputs["c"].shape == (len(batch.target), 5, 1)
            assert torch.equal(batch.inputs["z"][:, 0], batch.target)
            assert torch.equal(batch.inputs["c"] // 20, (batch.target // 20)[:, None].expand(-1, 5, -1))
            assert set(batch.sizes["c"].tolist()) == {20.0} and set(batch.sizes["z"].tolist()) == {1.0}
            drawn.update(batch.inputs["c"].flatten().tolist())
            targets.update(batch.target.flatten().tolist())
    assert set(targets.values()) == {40} and len(targets) == n
    assert sum(drawn.values()) == 40 * n * 5
    assert min(drawn.values()) > 120 and max(drawn.values()) < 290, "200 each, with a standard deviation of 14 at most"


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
    assert [row for row, *_ in rows] == [
        f"{name}, {what}" for name in ("numbers", "images") for what in ("support sets", "training step")
    ]
    for _, plain, ours, ratio in rows:
        plain, ours = (int(rate.replace(",", "")) for rate in (plain, ours))
        assert float(ratio) == pytest.approx(ours / plain, rel=0.05, abs=0.01)
