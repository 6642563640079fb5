"""The way from a step to the cross entropy that CONTRIBUTING.md walks."""

import re
import traceback
from pathlib import Path
from types import SimpleNamespace

import mnist.train
from common import ROOT
from training import experiment_in
from training.steps import Step

import pytest
import torch
from torch.distributions import bernoulli


@pytest.mark.parametrize("model", ["mvae", "mopoe"])
def test_a_traceback_has_a_frame_for_each_item(monkeypatch, model):
    walk = (ROOT / "CONTRIBUTING.md").read_text().split("1. `mnist/train.py`")[1].split("```")[0]
    named = re.findall(r"^\d+\. `(\S+\.py)`", walk, re.M)[2:]  # those of steps 4 and on that name a file of their own
    frames, original = [], bernoulli.binary_cross_entropy_with_logits

    def watched(*args, **options):
        files = [Path(frame.filename) for frame in traceback.extract_stack()]
        ours = [path.relative_to(ROOT).as_posix() for path in files if ROOT in path.parents]
        frames.append([path for path in ours if path.split("/")[0] in ("common", "training")])
        return original(*args, **options)

    monkeypatch.setattr(bernoulli, "binary_cross_entropy_with_logits", watched)
    config = mnist.train.Config(demo=True, limit=60, model=model)
    experiment = experiment_in(mnist.train, config)
    train, _ = experiment.splits(config)
    network = experiment.build(config)
    objective = experiment.objective(config, network).train()
    step = Step(objective, SimpleNamespace(zero_grad=objective.zero_grad, step=lambda: None))
    step(experiment.examples(config, train, network), torch.arange(8), 8, 0.5)
    assert {len(files) for files in frames} == {7}
    if model == "mvae":
        assert [*dict.fromkeys(frames[0])] == named
