"""Estimates as the scripts print and write them."""

import json

from torch import Tensor

from common.checkpoints import write_atomically
from common.options import LoglikeConfig


def summarise(values: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Mean and standard error over examples of {name: (N,)}."""
    return {
        name: {"mean": x.double().mean().item(), "stderr": x.double().std(unbiased=len(x) > 1).item() / len(x) ** 0.5}
        for name, x in values.items()
    }


def report(
    estimates: dict[str, dict[str, float]],
    config: LoglikeConfig,
    experiment: str,
    n_examples: int,
    about: dict[str, str] | None = None,
) -> None:
    """Print a table of the estimates, in Markdown, and write them to the file that --json names.

    Args:
        about: what else must be said of the data.
    """
    data = ", ".join([experiment, *(f"{value} {name}" for name, value in (about or {}).items())])
    print(
        f"\n| {data}, {n_examples} test examples, {config.n_samples} samples | mean | standard error |\n|---|---|---|"
    )
    for name, estimate in estimates.items():
        print(f"| {in_table(name)} | {estimate['mean']:.3f} | {estimate['stderr']:.3f} |")
    if config.json:
        content = {
            "experiment": experiment,
            **(about or {}),
            "checkpoint": str(config.model),
            "split": "test",
            "n_examples": n_examples,
            "n_samples": config.n_samples,
            "seed": config.seed,
            "estimates": estimates,
        }
        write_atomically(config.json, json.dumps(content, indent=2).encode())


def in_table(name: str) -> str:
    """A name in a cell of a Markdown table."""
    return name.replace("|", r"\|")
