"""Runs of mnist's train.py: a small configuration, its metrics, and whether two runs are the same."""

import json

from common.checkpoints import BEST, LAST, load
from mnist import train as mnist_train

SMALL = {"demo": True, "limit": 300, "epochs": 5, "annealing_epochs": 3, "batch_size": 50, "n_latents": 8}
SMALL |= {"lr_schedule": "constant"}  # as the demo has it


def config(save_dir, **changes):
    return mnist_train.Config(save_dir=save_dir, **(SMALL | changes))


def metrics(save_dir):
    lines = [json.loads(line) for line in (save_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


def assert_same_run(a, b):
    """Bit for bit: the weights, the optimiser's state, the random state, every figure."""
    assert metrics(a) == metrics(b)
    for name in (LAST, BEST):
        x, y = load(a / name), load(b / name)
        assert (x["epoch"], x["best"], x["best_epoch"]) == (y["epoch"], y["best"], y["best_epoch"])
        assert all(x["state_dict"][key].equal(y["state_dict"][key]) for key in x["state_dict"])
    x, y = load(a / LAST), load(b / LAST)
    assert x["rng"][0]["cpu"].equal(y["rng"][0]["cpu"])
    for one, other in zip(x["optimizer"]["state"].values(), y["optimizer"]["state"].values(), strict=True):
        assert all(one[key].equal(other[key]) for key in one)
