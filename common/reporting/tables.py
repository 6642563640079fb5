"""Estimates as the scripts print and write them."""

import json
from typing import TYPE_CHECKING

from torch import Tensor

from common import distributed
from common.io import write_atomically

if TYPE_CHECKING:
    from common.training.options import LoglikeConfig


def summarise(values: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Mean and standard error over examples of {name: (N,)}."""
    return {
        name: {"mean": x.double().mean().item(), "stderr": x.double().std(unbiased=len(x) > 1).item() / len(x) ** 0.5}
        for name, x in values.items()
    }


def report(
    estimates: dict[str, dict[str, float]],
    config: "LoglikeConfig",
    experiment: str,
    n_examples: int,
    about: dict[str, str] | None = None,
    attributes: dict[str, dict[str, float | None]] | None = None,
) -> None:
    """Print a table of the estimates, in Markdown, and write them to the file that --json names.

    Args:
        about: what else must be said of the data.
        attributes: what is known of each, alike for all: a table of its own.
    """
    data = ", ".join([experiment, *(f"{value} {name}" for name, value in (about or {}).items())])
    print(
        f"\n| {data}, {n_examples} test examples, {config.n_samples} samples | mean | standard error |\n|---|---|---|"
    )
    for name, estimate in estimates.items():
        print(f"| {in_table(name)} | {estimate['mean']:.3f} | {estimate['stderr']:.3f} |")
    if attributes:
        print(f"\n{attribute_table(attributes)}")
    if config.json and distributed.rank() == 0:
        content = {
            "experiment": experiment,
            **(about or {}),
            "checkpoint": str(config.model),
            "split": "test",
            "n_examples": n_examples,
            "n_samples": config.n_samples,
            "seed": config.seed,
            "estimates": estimates,
            **({"attributes": attributes} if attributes else {}),
        }
        write_atomically(config.json, json.dumps(content, indent=2).encode())


def attribute_table(attributes: dict[str, dict[str, float | None]]) -> str:
    """In %, by attribute, and the means; "-" for what is undefined."""
    columns = list(next(iter(attributes.values())))
    means = {}
    for column in columns:
        known = [row[column] for row in attributes.values() if row[column] is not None]
        means[column] = sum(known) / len(known) if known else None
    lines = [f"| attribute, % | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name, row in (attributes | {"mean": means}).items():
        lines.append(f"| {name} | {' | '.join('-' if x is None else f'{100 * x:.1f}' for x in row.values())} |")
    return "\n".join(lines)


def in_table(name: str) -> str:
    """A name in a cell of a Markdown table."""
    return name.replace("|", r"\|")
