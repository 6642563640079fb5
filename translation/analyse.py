"""Coherence of a model of translations: do its numbers and its latents keep the digits that they were given?

    python analyse.py trained_models                      tables and pictures
    python analyse.py trained_models --json out.json      and a file

Each figure is the share of right digits, of four a number (thousands to units); "number" follows where all four are
right. A text that is no number has no digit right. What else is measured: `python ../mnist/analyse.py --help`;
umap.png is coloured by the thousands. Texts have no pictures: umap.png and kl.png alone are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial

from common.data import Examples
from common.models import MultimodalVAE
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.metrics import Judge
from reports.sampling import Shown
from training import run_from_command_line
from translation.data import CODES, load, names, numbers
from translation.options import NoFiles

import torch
from torch import Tensor

PLACES = ("thousands", "hundreds", "tens", "units")


@dataclass
class Config(NoFiles, AnalysisConfig):
    """The options of analyse.py."""


@cache
def dictionary(language: str) -> dict[str, int]:
    """The number of each text."""
    return {" ".join(words): n for n, words in enumerate(numbers(language))}


def digits(texts: list[str], language: str) -> Tensor:
    """The digits (N, 4) int64 of texts, thousands first; -1 for a text that is no number."""
    number = torch.tensor([dictionary(language).get(text, -1) for text in texts])
    places = torch.tensor([1000, 100, 10, 1])
    return torch.where(number[:, None] < 0, -1, number[:, None] // places % 10)


def judges(config: Config, train: Examples, labels: Tensor, model: MultimodalVAE) -> dict[str, Judge]:
    """The judges of both languages: a dictionary."""

    def judge(language: str) -> Judge:
        def read(values: Mapping[str, Tensor]) -> Tensor:
            return digits(names(values[language].cpu(), language), language)

        return Judge((language,), read, trained=False)

    return {language: judge(language) for language in CODES}


DATA = Labelled(
    name="translation",
    load=load,
    labels=lambda config, split, texts: digits(names(texts.modalities["english"].cpu(), "english"), "english"),
    names=PLACES,
    n_values=10,
    judges=judges,
    groups=lambda labels: {f"{d}...": labels[:, 0] == d for d in range(10)},
    shown=Shown(()),
    label="digit",
    all_right="number",
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
