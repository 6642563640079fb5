"""Captions as vectors, to compare with images: sums of word vectors, frequent words weighing less.

FastText (Bojanowski et al. 2017) on the training captions, and smooth inverse frequency (Arora et al. 2017), as Shi et
al. 2019 use them to tell how well images and captions fit. Their vectors were never released: these are made anew.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from common.errors import InputError
from cub.captions import END, SPECIAL, Vocabulary

DIM = 300
WINDOW, EPOCHS = 3, 10  # of FastText (authors' code)
A = 1e-3  # a word's weight is A / (A + its frequency)
BUCKETS = 2**18  # of n-grams, 0.3 GB: gensim's 2 million take 2.4 GB; a fifth of CUB's captions has 20,000 n-grams


class Sentences(NamedTuple):
    """What embeds captions.

    vectors: (V, 300) float64, of each of a vocabulary's tokens, weighted.
    component: (300,), the direction that all captions share, of length 1.
    """

    vectors: Tensor
    component: Tensor

    def embed(self, ids: Tensor) -> Tensor:
        """Sums of the vectors of tokens (N, L) up to the first <eos>, over their number, without the component.

        As the authors do: <eos> is one of the tokens, the vector of an unknown word is all -1, of <pad> 0, of <eos> 1.
        So a caption of no words is embedded as <eos> alone.

        Returns:
            (N, 300) float64.
        """
        sums = _means(self.vectors, ids)
        return sums - (sums @ self.component)[:, None] * self.component


def fit(words: Sequence[list[str]], ids: Tensor, vocabulary: Vocabulary, seed: int = 0) -> Sentences:
    """Train FastText on captions, and take their tokens' frequencies and first principal component.

    Special tokens weigh what their frequency says, as words do.

    Args:
        words: of each caption, also those that the vocabulary lacks.
        ids: (N, L), the captions' tokens.
        vocabulary: whose tokens they are.

    Raises:
        InputError: gensim is not installed.
    """
    try:
        from gensim.models import FastText  # slow to import
    except ImportError as error:
        raise InputError("sentence embeddings need gensim: pip install -e .[cub]") from error

    frequency = torch.bincount(ids[_in_sentence(ids)], minlength=len(vocabulary.words)).double()
    frequency /= frequency.sum()
    # one worker: more would make each run another one
    fasttext = FastText(vector_size=DIM, window=WINDOW, min_count=1, bucket=BUCKETS, seed=seed, workers=1)
    fasttext.build_vocab(words)
    fasttext.train(words, total_examples=len(words), epochs=EPOCHS)
    special = torch.arange(-1.0, 2.0).double()[:, None].expand(-1, DIM)  # <exc>, <pad>, <eos>
    of_words = torch.from_numpy(fasttext.wv[vocabulary.words[len(SPECIAL) :]]).double()
    return weighted(torch.cat([special, of_words]), frequency, ids)


def weighted(vectors: Tensor, frequency: Tensor, ids: Tensor) -> Sentences:
    """Smooth inverse frequency, of the principal component of captions.

    The component is that of the centred embeddings; Arora et al. do not centre.

    Args:
        vectors: (V, D) of the tokens.
        frequency: (V,), which share of all tokens each is.
        ids: (N, L), the captions.
    """
    vectors = vectors * (A / (A + frequency))[:, None]
    means = _means(vectors, ids)
    _, axes = torch.linalg.eigh(torch.cov(means.T))
    return Sentences(vectors, axes[:, -1])


def _means(vectors: Tensor, ids: Tensor) -> Tensor:
    inside = _in_sentence(ids)
    sums = embedding_bag(ids, vectors, mode="sum", per_sample_weights=inside.to(vectors))
    return sums / inside.sum(dim=1, keepdim=True)


def _in_sentence(ids: Tensor) -> Tensor:
    """Which tokens (N, L) are not behind an <eos>."""
    end = ids == END
    return end.cumsum(dim=1) - end.long() == 0
