"""Sample from a model of UCI Multiple Features: from the prior, or given tables of test examples.

    python sample.py trained_models                                       draws from the prior
    python sample.py trained_models --mixture 10 --data-dir data          draws from ten Gaussians fitted to latents
    python sample.py trained_models --given fou mor --data-dir data       what test examples decode to, given two tables
    python sample.py trained_models --given digit --data-dir data         the same given their digits

Writes prior.csv, mixture_10.csv, from_fou_mor.csv: a line for each draw of z, the digit and the means of the tables, in
the units of the files; and a picture of the same name, of pix, which says the digits below.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.checkpoints import load_config
from common.data.scales import in_units
from mfeat.data import INK, PICTURE, load_as_trained
from reports import options, plots, sampling
from training import run_from_command_line

import torch
from torch import Tensor

COLUMNS = 12


@dataclass
class Config(options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("given",)

    n_samples: int = 12
    """number of draws, or of test examples"""
    given: tuple[str, ...] = ()
    """generate from these tables of the first test examples, or from their digit"""


@torch.no_grad()
def main(config: Config) -> None:
    """Save the table and the picture that the options ask for, and print their paths."""
    config.check()
    model, scales = config.trained_model("mfeat"), load_config(config.model, "mfeat")["scales"]
    torch.manual_seed(config.seed)
    path, rows = config.path(), {}
    if config.given:
        path = path.with_name(f"from_{'_'.join(config.given)}.png")
        batch = load_as_trained("test", config).take(slice(config.n_samples)).to(model.device)[:]
        z = model.posterior(batch, config.given).sample()
        rows["test example"] = pictures(in_units(batch.modalities, scales))
    else:
        z = model.draw_latents(config.n_samples, config.latents(model, lambda: load_as_trained("train", config)))
    values = in_units(model.likelihood.point(model.decode(z)), scales)
    rows["decoded"] = pictures(values)
    title = f"decoded from a sample of q(z|{','.join(config.given)})" if config.given else "samples"
    print(sampling.write_lines(path.with_suffix(".csv"), lines_of(values)))
    plots.image_grid(path, *plots.alternating(rows, COLUMNS), title)
    print(path)


def lines_of(values: dict[str, Tensor]) -> list[str]:
    """The lines of a CSV file: the digit, fou_0, fou_1, ...; values (N,) and (N, columns)."""
    columns = {name: x for name, x in values.items() if name != "digit"}
    titles = ["digit", *(f"{name}_{i}" for name, x in columns.items() for i in range(x.shape[1]))]
    cells = torch.cat([values["digit"][:, None], *columns.values()], dim=1)
    return [",".join(titles), *(",".join(f"{x:.6g}" for x in row) for row in cells.tolist())]


def pictures(values: dict[str, Tensor]) -> tuple[Tensor, list[str]]:
    """The images (N, 1, 16, 15) in [0, 1] that pix is, and the digits."""
    return (values["pix"] / INK).unflatten(1, (1, *PICTURE)), list(map(str, values["digit"].tolist()))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
