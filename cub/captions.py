"""Captions as numbered words of a vocabulary, as in the MMVAE authors' datasets.py, without its sentence splitter."""

import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.errors import InputError, install, require
from common.io import read_json

import torch
from msgspec import Struct
from torch import Tensor

LENGTH = 32
SPECIAL = ("<exc>", "<pad>", "<eos>")
UNKNOWN, PADDING, END = range(3)
INSTALL = f"captions need NLTK: {install('nltk')}"


def tokenizer() -> str:
    """Name and version of the tokenizer; cached words are valid for this version alone.

    Raises:
        InputError: NLTK is not installed.
    """
    try:
        return f"NLTK {version('nltk')}"
    except PackageNotFoundError as error:
        raise InputError(INSTALL) from error


def words(caption: str) -> list[str]:
    """Split a caption into words and punctuation, in lower case.

    Uses NLTK's word rules, which need no download. They split off a period only at the end of the text. The authors
    first split captions into sentences, with a model that NLTK downloads; here a period before a blank is split off
    instead.

    Raises:
        InputError: NLTK is not installed.
    """
    try:
        from nltk.tokenize import word_tokenize  # takes a second to import
    except ImportError as error:
        raise InputError(INSTALL) from error
    return word_tokenize(re.sub(r"(?<!\.)\.(?=\s)", " .", caption.lower()), preserve_line=True)


class Vocabulary:
    """Numbered words; the first three stand for an unknown word, padding and the end of a caption (SPECIAL).

    Args:
        words: V words, in the order of their numbers.

    Raises:
        InputError: the first three words are not SPECIAL, or a word occurs twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        require(
            tuple(self.words[:3]) == SPECIAL, f"a vocabulary begins with {', '.join(SPECIAL)}, not {self.words[:3]}"
        )
        require(len(self.ids) == len(self.words), "the vocabulary has a word twice: list each word once")

    @classmethod
    def of(cls, captions: Sequence[str | list[str]], min_occ: int = 3) -> "Vocabulary":
        """Vocabulary of the words that occur more than min_occ times (authors' code: 3), in order of occurrence."""
        counts = Counter(word for caption in captions for word in _split(caption))
        return cls([*SPECIAL, *(word for word, n in counts.items() if n > min_occ and word not in SPECIAL)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, captions: Sequence[str | list[str]]) -> Tensor:
        """Word numbers (N, 32) int64 of N captions: the first 31 words, <eos>, then padding; UNKNOWN for unknown words.

        Args:
            captions: texts, or lists of `words`.
        """
        fill = [PADDING] * LENGTH
        numbers = [[self.ids.get(word, UNKNOWN) for word in _split(caption)[: LENGTH - 1]] for caption in captions]
        return torch.tensor([[*ids, END, *fill[len(ids) + 1 :]] for ids in numbers]).view(-1, LENGTH)

    def sentences(self, ids: Tensor) -> list[str]:
        """Texts of captions (N, 32), up to the first <eos>, without blanks before punctuation.

        Raises:
            InputError: NLTK is not installed.
        """
        try:
            from nltk.tokenize.treebank import TreebankWordDetokenizer
        except ImportError as error:
            raise InputError(INSTALL) from error
        join, texts = TreebankWordDetokenizer().detokenize, []
        for row in ids.tolist():
            row = row[: row.index(END)] if END in row else row
            texts.append(join([self.words[i] for i in row if i != PADDING]))
        return texts

    def unknown(self, caption: str) -> list[str]:
        """Words of a caption that the vocabulary lacks."""
        return [word for word in words(caption) if word not in self.ids]


def _split(caption: str | list[str]) -> list[str]:
    """Words of a caption that may be split already."""
    return words(caption) if isinstance(caption, str) else caption


class AuthorsVocabulary(Struct):
    """A cub.vocab: the number of each word, and the word of each number."""

    w2i: dict[str, int]
    i2w: dict[int, str]


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a cub.vocab that the MMVAE authors' code wrote: JSON of word to number (w2i) and back (i2w).

    Raises:
        InputError: the file is missing, damaged, or not a vocabulary.
    """
    again = "give the cub.vocab that the authors' code wrote beside its captions (oc:3_msl:32/)"
    content = read_json(path, AuthorsVocabulary, again)
    ordered = [content.i2w.get(i, "") for i in range(len(content.i2w))]
    consistent = content.w2i == {word: i for i, word in enumerate(ordered)}
    require(consistent, f"{path} contradicts itself (its w2i and i2w differ): {again}")
    require(tuple(ordered[:3]) == SPECIAL, f"{path} lacks {', '.join(SPECIAL)} as its first words: {again}")
    return Vocabulary(ordered)
