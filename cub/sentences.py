"""Captions as vectors, to compare with images: weighted means of word vectors, in which frequent words weigh less.

Word vectors: FastText (Bojanowski et al. 2017), trained on the training captions. Weights: smooth inverse frequency
(Arora et al. 2017). Shi et al. 2019 use both to measure how well images and captions fit. Their vectors were never
released, so ours are trained here.
"""

from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError, install
from cub.captions import END, SPECIAL, Vocabulary

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

DIM = 300
WINDOW, EPOCHS = 3, 10  # FastText's, as in the authors' code
A = 1e-3  # a word's weight is A / (A + its frequency)
BUCKETS = 2**18  # for n-grams, 0.3 GB: gensim's 2 million take 2.4 GB; a fifth of CUB's captions has 20,000 n-grams


class Sentences(NamedTuple):
    """Weighted word vectors that embed captions.

    vectors: (V, 300) float64, the weighted vector of each token of a vocabulary.
    component: (300,) float64, unit vector of the direction that all captions share, which is removed.
    """

    vectors: Tensor
    component: Tensor

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (N, 300) of captions (N, L): mean token vector up to the first <eos>, without the component.

        As in the authors' code, <eos> is one of the tokens, and the vectors of an unknown word, <pad> and <eos> are all
        -1, 0 and 1 before weighting. An empty caption is embedded as <eos> alone.

        Returns:
            (N, 300) float64.
        """
        sums = _means(self.vectors, ids)
        return sums - (sums @ self.component)[:, None] * self.component


def fit(words: Sequence[list[str]], ids: Tensor, vocabulary: Vocabulary, seed: int = 0) -> Sentences:
    """Train FastText on captions and weigh its vectors: the `Sentences` of a vocabulary.

    Special tokens are weighted by their frequency, as words are.

    Args:
        words: words of the N captions, also those that the vocabulary lacks.
        ids: (N, L) int64, the captions as tokens of the vocabulary.
        seed: FastText's.

    Raises:
        InputError: gensim is not installed.
    """
    try:
        from gensim.models import FastText  # slow to import
    except ImportError as error:
        raise InputError(f"sentence embeddings need gensim: {install('gensim')}") from error

    frequency = torch.bincount(ids[_in_sentence(ids)], minlength=len(vocabulary.words)).double()
    frequency /= frequency.sum()
    # one worker: with more, results differ from run to run
    fasttext = FastText(vector_size=DIM, window=WINDOW, min_count=1, bucket=BUCKETS, seed=seed, workers=1)
    fasttext.build_vocab(words)
    fasttext.train(words, total_examples=len(words), epochs=EPOCHS)
    special = torch.arange(-1.0, 2.0).double()[:, None].expand(-1, DIM)  # <exc>, <pad>, <eos>
    word_vectors = torch.from_numpy(fasttext.wv[vocabulary.words[len(SPECIAL) :]]).double()
    return weighted(torch.cat([special, word_vectors]), frequency, ids)


def weighted(vectors: Tensor, frequency: Tensor, ids: Tensor) -> Sentences:
    """Weigh vectors by smooth inverse frequency, and find the first principal component of the captions.

    The principal component is computed from centred embeddings; Arora et al. do not centre them.

    Args:
        vectors: (V, D), one per token.
        frequency: (V,), relative frequency of each token.
        ids: (N, L) int64, the captions.
    """
    vectors = vectors * (A / (A + frequency))[:, None]
    means = _means(vectors, ids)
    _, axes = torch.linalg.eigh(torch.cov(means.T))
    return Sentences(vectors, axes[:, -1])


def _means(vectors: Tensor, ids: Tensor) -> Tensor:
    """Mean vector (N, D) of the tokens (N, L) of each caption, up to its first <eos>."""
    inside = _in_sentence(ids)
    sums = embedding_bag(ids, vectors, mode="sum", per_sample_weights=inside.to(vectors))
    return sums / inside.sum(dim=1, keepdim=True)


def _in_sentence(ids: Tensor) -> Tensor:
    """Whether each token (N, L) stands before or at the first <eos>: (N, L) bool."""
    end = ids == END
    return end.cumsum(dim=1) - end.long() == 0
