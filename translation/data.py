"""The numbers from 0 to 9999, written out in English and in French."""

import re
from functools import cache

from common.data import Examples
from common.data.files import DataConfig
from common.errors import InputError, install, require

import torch
from torch import Tensor

CODES = {"english": "en", "french": "fr"}  # of num2words
N, N_TEST = 10_000, 1_000
LENGTH = 8  # words of the longest number, neuf mille neuf cent quatre vingt dix neuf
SEED = 0  # of the split


def load(split: str, config: DataConfig) -> Examples:
    """Load a split of the numbers; no number is in both, and no files are read.

    Args:
        split: "train" (9,000 numbers) or "test" (1,000).
        config: only its limit counts.

    Returns:
        english and french (N, 8) int64, words of the same number in both languages.
    """
    order = torch.randperm(N, generator=torch.Generator().manual_seed(SEED))
    rows = order[:-N_TEST] if split == "train" else order[-N_TEST:]
    return Examples({language: _encoded(language)[rows[: config.limit]] for language in CODES})


@cache
def numbers(language: str) -> list[list[str]]:
    """Return the words of each number, without hyphens and commas.

    Raises:
        InputError: num2words is not installed.
    """
    try:
        from num2words import num2words
    except ImportError as error:
        raise InputError(f"numbers are written out by num2words: {install('num2words')}") from error
    return [words_of(num2words(n, lang=CODES[language])) for n in range(N)]


@cache
def vocabulary(language: str) -> list[str]:
    """Return the words of a language by their ids, and at the end the start of a text and what fills it up."""
    return [*sorted({word for words in numbers(language) for word in words}), "<start>", "<fill>"]


def start(language: str) -> int:
    """Return the id of the start of a text."""
    return vocabulary(language).index("<start>")


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return [word for word in re.split(r"[\s,-]+", text.lower()) if word]


def parse(text: str, language: str) -> Tensor:
    """Return the ids (1, 8) int64 of a text that a user writes.

    Raises:
        InputError: it has no words, too many, an unknown one, or is no number.
    """
    words = words_of(text)
    require(0 < len(words) <= LENGTH, f"a text has 1 to {LENGTH} words, not the {len(words)} of {text!r}")
    *known, _, _ = vocabulary(language)
    unknown = [word for word in words if word not in known]
    require(not unknown, f"unknown {language} words: {', '.join(unknown)}; there are {', '.join(known)}")
    is_number = words in numbers(language)
    require(is_number, f"{text!r} is no number from 0 to {N - 1} in {language}: write one in words, without digits")
    return _ids([words], language)


def names(ids: Tensor, language: str) -> list[str]:
    """Return the texts of ids (N, 8), the words before the first filler."""
    words = vocabulary(language)
    return [" ".join(words[i] for i in row).split("<fill>")[0].strip() for row in ids.tolist()]


@cache
def _encoded(language: str) -> Tensor:
    """Return the ids (10,000, 8) of all numbers."""
    return _ids(numbers(language), language)


def _ids(texts: list[list[str]], language: str) -> Tensor:
    """Return the ids (N, 8) of the words of N texts, filled up at the end."""
    ids = {word: i for i, word in enumerate(vocabulary(language))}
    return torch.tensor([[ids[word] for word in (words + LENGTH * ["<fill>"])[:LENGTH]] for words in texts])
