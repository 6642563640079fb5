"""Runs of mnist's train.py: a small configuration, its metrics, and whether two runs are the same."""

import json

from common.checkpoints import BEST, LAST, load
from mnist import train as mnist_train

import torch

SMALL = {"demo": True, "limit": 300, "epochs": 5, "annealing_epochs": 3, "batch_size": 50, "n_latents": 8}
SMALL |= {"lr_schedule": "constant"}  # as the demo has it


def config(save_dir, **changes):
    return mnist_train.Config(save_dir=save_dir, **(SMALL | changes))


def metrics(save_dir):
    lines = [json.loads(line) for line in (save_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


STATE = ("state_dict", "optimizer", "rng", "epoch", "best", "best_epoch")


def assert_same_run(a, b):
    """Bit for bit: the weights, the optimiser's state, the random states, every figure."""
    assert metrics(a) == metrics(b)
    for name in (LAST, BEST):
        x, y = load(a / name), load(b / name)
        for key in STATE:
            assert equal(x.get(key), y.get(key)), f"{name}: {key}"


def equal(x, y):
    """Whether two nested containers of tensors and plain values are the same."""
    if isinstance(x, torch.Tensor):
        return x.equal(y)
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
    if isinstance(x, list):
        return len(x) == len(y) and all(map(equal, x, y))
    return x == y
