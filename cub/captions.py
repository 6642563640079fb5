"""Captions as words of a vocabulary: what the MMVAE authors' datasets.py does, but for the splitting into sentences."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError, require

LENGTH = 32
SPECIAL = ("<exc>", "<pad>", "<eos>")
UNKNOWN, PADDING, END = range(3)
INSTALL = "captions need NLTK: pip install -e .[cub]"


def tokenizer() -> str:
    """What splits captions, and its version: words that were kept of another one are not the same.

    Raises:
        InputError: NLTK is not installed.
    """
    try:
        return f"NLTK {version('nltk')}"
    except PackageNotFoundError as error:
        raise InputError(INSTALL) from error


def words(caption: str) -> list[str]:
    """The words of a caption and its punctuation, in lower case.

    NLTK's rules, which need no download. They part a period from its word at the very end alone; so does its sentence
    splitter, which is downloaded, for each sentence, and for them a blank after a period ends one.

    Raises:
        InputError: NLTK is not installed.
    """
    try:
        from nltk.tokenize import word_tokenize  # takes a second to import
    except ImportError as error:
        raise InputError(INSTALL) from error
    return word_tokenize(re.sub(r"(?<!\.)\.(?=\s)", " .", caption.lower()), preserve_line=True)


class Vocabulary:
    """Words by their number; the first three are SPECIAL: an unknown word, padding, the end of a caption.

    Raises:
        InputError: the first words are others, or a word is there twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        require(tuple(self.words[:3]) == SPECIAL, f"a vocabulary begins with {', '.join(SPECIAL)}")
        require(len(self.ids) == len(self.words), "a word is twice in the vocabulary")

    @classmethod
    def of(cls, captions: Sequence[str | list[str]], min_occ: int = 3) -> "Vocabulary":
        """Words seen more than min_occ times, in the order of their first occurrence (authors' code: 3)."""
        seen = Counter(word for caption in captions for word in _split(caption))
        return cls([*SPECIAL, *(word for word, n in seen.items() if n > min_occ and word not in SPECIAL)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, captions: Sequence[str | list[str]]) -> Tensor:
        """Captions, or their `words`, as (N, 32) int64: the first 31 words, <eos>, then padding; UNKNOWN for others."""
        fill = [PADDING] * LENGTH
        found = [[self.ids.get(word, UNKNOWN) for word in _split(caption)[: LENGTH - 1]] for caption in captions]
        return torch.tensor([[*ids, END, *fill[len(ids) + 1 :]] for ids in found]).view(-1, LENGTH)

    def sentences(self, ids: Tensor) -> list[str]:
        """Captions (N, 32) as text: up to <eos>, without blanks before commas and the like.

        Raises:
            InputError: NLTK is not installed.
        """
        try:
            from nltk.tokenize.treebank import TreebankWordDetokenizer
        except ImportError as error:
            raise InputError(INSTALL) from error
        join, found = TreebankWordDetokenizer().detokenize, []
        for row in ids.tolist():
            row = row[: row.index(END)] if END in row else row
            found.append(join([self.words[i] for i in row if i != PADDING]))
        return found

    def unknown(self, caption: str) -> list[str]:
        """The words of a caption that are not among these."""
        return [word for word in words(caption) if word not in self.ids]


def _split(caption: str | list[str]) -> list[str]:
    return words(caption) if isinstance(caption, str) else caption


def read_vocabulary(path: Path) -> Vocabulary:
    """The words of a model of the MMVAE authors': their cub.vocab, JSON of word to number (w2i) and back (i2w).

    Raises:
        InputError: missing, damaged, or something else.
    """
    again = "give the cub.vocab that the authors' code wrote beside its captions (oc:3_msl:32/)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ids, found = content["w2i"], content["i2w"]
        ordered = [found[str(i)] for i in range(len(found))]
        same = ids == {word: i for i, word in enumerate(ordered)}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {again}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is no vocabulary: {again}") from error
    require(same and tuple(ordered[:3]) == SPECIAL, f"{path} contradicts itself or lacks {SPECIAL}: {again}")
    return Vocabulary(ordered)
