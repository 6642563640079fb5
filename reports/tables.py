"""Figures as the scripts report them: tables in Markdown, and a JSON file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from common.checkpoints import load_config
from common.estimators import QUALITIES
from common.execution import processes
from common.io import write_atomically
from reports.options import LoglikeConfig, ScoresConfig
from training.provenance import provenance

import msgspec
import torch
from torch import Tensor

FEW_EFFECTIVE = 2  # samples
MOST_NAMED = 4  # estimates in a note
FEW_EXAMPLES = 1000  # in training; fewer give the linear classifiers of latents too few steps
TRUSTED = 0.8  # share of the test examples that a judge has to read rightly
Estimates = dict[str, dict[str, float | None]]  # {name: {"mean", "stderr"}}; no stderr of one example or group


@dataclass(frozen=True)
class Table:
    """Figures, and how Markdown shows them.

    key: the figures' name in the JSON; tables with the same key share an entry.
    figures: plain values for the JSON.
    head: the titles of the columns.
    rows: the cells of each row, as text.
    notes: text after the table.
    """

    key: str
    figures: Any
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str = ""

    def __str__(self) -> str:
        """The table in Markdown, with its notes."""
        return markdown(self.head, self.rows) + (f"\n\n{self.notes}" if self.notes else "")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts in Markdown."""
    escaped = [[text.replace("|", r"\|") for text in cells] for cells in (head, *rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in escaped]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def report(
    config: ScoresConfig,
    experiment: str,
    tables: Sequence[Table],
    settings: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Print the tables that have rows, in Markdown, and write all figures to the file that --json names.

    Args:
        settings: facts about the evaluation for the JSON, such as the number of examples.
        about: facts about the data for the JSON.
    """
    for table in tables:
        if table.rows:
            print(f"\n{table}")
    if config.json and processes.rank() == 0:
        head = {"experiment": experiment, **(about or {}), "checkpoint": str(config.model), "split": "test"}
        _write_json(config.json, head | dict(settings), tables)
        print(f"\n{config.json}")


def report_runs(stem: Path, experiment: str, table: Table, settings: Mapping[str, Any]) -> None:
    """Print a table of several runs, and write it to `stem`.md and its figures to `stem`.json."""
    print(f"\n{table}\n")
    write_atomically(stem.with_suffix(".md"), f"{table}\n".encode())
    _write_json(stem.with_suffix(".json"), {"experiment": experiment, **settings}, [table])


def _write_json(path: Path, content: dict[str, Any], tables: Sequence[Table]) -> None:
    content |= {"date": datetime.now().date().isoformat(), **provenance()}
    for table in tables:
        content[table.key] = content[table.key] | table.figures if table.key in content else table.figures
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=2))  # null where not finite


def summarise(values: Mapping[str, Tensor], groups: Tensor | None = None) -> Estimates:
    r"""Mean and standard error over examples of {name: (N,)}.

    Examples of one group may depend on each other: with G groups the squared error is that of the groups' sums,

    .. math:: \frac{G}{G - 1} \frac1{N^2} \sum_g \Big( \sum_{i \in g} (x_i - \bar x) \Big)^2

    (Liang & Zeger 1986), which is the usual one if each example is a group.

    Args:
        groups: the group of each example (N,), from 0 on; unused for values of another length.
    """
    estimates = {}
    for name, x in values.items():
        mean = x.double().mean()
        deviations = x.double().cpu() - mean.cpu()
        if groups is not None and len(groups) == len(x):
            deviations = deviations.new_zeros(int(groups.max()) + 1).index_add(0, groups.cpu(), deviations)
        n = len(deviations)
        stderr = (deviations.square().sum() * (n / (n - 1))).sqrt().item() / len(x) if n > 1 else None
        estimates[name] = {"mean": mean.item(), "stderr": stderr}
    return estimates


def estimate_table(
    estimates: Estimates, head: tuple[str, str], shown: Callable[[float | None], str], notes: str = ""
) -> Table:
    """The table of means and standard errors, each as `shown`; `head` has the titles of the names and of the means."""
    rows = [(name, shown(x["mean"]), shown(x["stderr"])) for name, x in estimates.items()]
    return Table("estimates", estimates, (*head, "standard error"), rows, notes=notes)


def report_estimates(
    values: Mapping[str, Tensor],
    config: LoglikeConfig,
    experiment: str,
    n_examples: int,
    about: Mapping[str, str] | None = None,
    more: Sequence[Table] = (),
    groups: Tensor | None = None,
) -> Estimates:
    """Report means and standard errors over the examples, and beside an estimate the means of its qualities.

    Args:
        values: {name: (N,)}, such as `reports.metrics.evaluate_examples` returns; accuracies in [0, 1], shown in %.
        about: facts about the data for the table and the JSON, {name: value}.
        more: other tables, which follow.
        groups: of examples that depend on each other, see `summarise`.

    Returns:
        {name: {"mean", "stderr"}}.
    """
    estimates = summarise(values, groups)
    title, about = data_scored(config, experiment, about, n_examples)
    shown = [name for name in estimates if not name.startswith(QUALITIES)]
    columns = [kind for kind in QUALITIES if any(f"{kind}, {name}" in estimates for name in shown)]
    samples = count(config.n_samples, "sample")
    if config.tolerance is not None:
        samples = f"at most {samples}, tolerance {config.tolerance:g} nats"
    head = (f"{title}, {samples}", "mean", "standard error", *columns)
    rows = []
    for name in shown:
        qualities = (estimates.get(f"{kind}, {name}") for kind in columns)
        cells = ("" if quality is None else decimals(quality["mean"], 1) for quality in qualities)
        rows.append((name, *(_estimate_cell(name, x) for x in estimates[name].values()), *cells))
    notes = f"{other_data(config)} {few_effective(estimates)}".strip()
    settings = {"n_examples": n_examples, "n_samples": config.n_samples, "seed": config.seed}
    settings |= {} if config.tolerance is None else {"tolerance": config.tolerance}
    report(config, experiment, [Table("estimates", estimates, head, rows, notes), *more], settings, about)
    return estimates


def _estimate_cell(name: str, x: float | None) -> str:
    """A value of an estimate as text: accuracies in %."""
    return f"{percent(x)} %" if "accuracy" in name and x is not None else decimals(x, 3)


def few_effective(estimates: Mapping[str, Mapping[str, float]]) -> str:
    """A note if an estimate rests on one sample or little more, by its mean effective number; else ""."""
    kind = QUALITIES[0]
    effective = {name.removeprefix(f"{kind}, "): x["mean"] for name, x in estimates.items() if name.startswith(kind)}
    few = [f'"{name}"' for name, n in effective.items() if n < FEW_EFFECTIVE]
    if not few:
        return ""
    named = "; ".join(few) if len(few) <= MOST_NAMED else f"{len(few)} of {len(effective)} estimates"
    return f"Fewer than {FEW_EFFECTIVE} samples are effective for {named}: these estimates may be far below log p."


def data_scored(
    config: ScoresConfig, experiment: str, about: Mapping[str, str] | None, n: int, kind: str = "test example"
) -> tuple[str, dict[str, str]]:
    """What a table's title and its JSON say about the data.

    Args:
        about: facts about the data, {name: value}.
        n: the number of examples.
        kind: what an example is called.
    """
    about = dict(about or {}) | ({"data": "demo"} if config.demo else {})
    described = [experiment, *(f"{value} {name}" for name, value in about.items()), count(n, kind)]
    return ", ".join(described), about


def other_data(config: ScoresConfig) -> str:
    """A note if the model was trained on the demo's data and is scored on others, or the other way round; else ""."""
    trained = load_config(config.model).get("demo", False)
    return "" if trained == config.demo else f"The model was trained {'with' if trained else 'without'} --demo."


def notes_on(shares: Estimates, n_train: int, n_incomplete: int) -> list[str]:
    """What the shares rest on: classifiers that are often wrong, few training examples, test examples left out."""
    judges, notes = {name: x["mean"] for name, x in shares.items() if name.startswith("classifier")}, []
    weak = [f"{name} ({percent(x)} %)" for name, x in judges.items() if x < TRUSTED]
    if weak:
        notes.append(f"Coherence says little where its judge errs on the test examples: {', '.join(weak)}.")
    if n_train < FEW_EXAMPLES:
        few = f"its linear classifiers took few steps, on {n_train} training examples"
        notes.append(f"Latent accuracy may be far too low: {few}.")
    if n_incomplete:
        notes.append(f"Without {count(n_incomplete, 'test example')} that lack a modality.")
    return notes


def parameter_table(n_parameters: Mapping[str, int], experiment: str) -> Table:
    """The table of the networks' numbers of parameters."""
    rows = [(name, f"{n:,}") for name, n in n_parameters.items()]
    return Table("parameters", n_parameters, (experiment, "parameters"), rows)


def attribute_table(attributes: dict[str, dict[str, float | None]], label: str = "attribute") -> Table:
    """The table of shares in [0, 1] by attribute and column, and of the columns' means, in %; None is undefined.

    Args:
        label: what the rows are, the first column's title.
    """
    columns, means = list(next(iter(attributes.values()))), {}
    for column in columns:
        known = [row[column] for row in attributes.values() if row[column] is not None]
        means[column] = fmean(known) if known else None
    rows = [(name, *map(percent, row.values())) for name, row in (attributes | {"mean": means}).items()]
    return Table("attributes", attributes, (f"{label}, %", *columns), rows)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation of a single value is 0."""
    x = torch.tensor(values, dtype=torch.float64)
    return x.mean().item(), x.std(correction=min(1, len(x) - 1)).item()


def over_seeds(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The mean ± the standard deviation over seeds, each as `shown`; of a single value just this value."""
    mean, deviation = map(shown, spread(values))
    return f"{mean} ± {deviation}" if len(values) > 1 else mean


def percent(share: float | None) -> str:
    """A share in [0, 1] in %, with one decimal, as all tables show shares; "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def decimals(x: float | None, n: int) -> str:
    """A value with n decimals; "-" for None."""
    return "-" if x is None else f"{x:.{n}f}"


def count(n: int, noun: str) -> str:
    """A number of things: "1 run", "1,000 runs"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
