"""The likelihood of captions: the words at each position, and the layer that makes their logits."""

from collections.abc import Callable

from cub.captions import END, PADDING

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributions import Categorical, Distribution

BLOCK = 2048  # words whose logits are computed together: arrays of ever new sizes would leave gaps in the memory


class Captions(Distribution):
    """Captions of LENGTH independent words, in which padding adds exactly 0 to the log-density.

    Args:
        embedded: (..., LENGTH, E).
        words: from these to logits (..., LENGTH, V).
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)

    def __init__(self, embedded: Tensor, words: Callable[[Tensor], Tensor]) -> None:
        super().__init__(embedded.shape[:-2], embedded.shape[-2:-1], validate_args=False)
        self.embedded, self.words = embedded, words

    @property
    def logits(self) -> Tensor:
        """Each position's logits of the V words, (..., LENGTH, V)."""
        return self.words(self.embedded)

    @property
    def mode(self) -> Tensor:
        """The most likely word at each position (..., LENGTH), padding after the first <eos>."""
        return _padded(self.logits.argmax(dim=-1))

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Captions (*sample_shape, ..., LENGTH) int64, padding after the first <eos>."""
        return _padded(Categorical(logits=self.logits).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (...) of captions (..., LENGTH) int64 in nats, summed over all words but padding."""
        shape = torch.broadcast_shapes(value.shape, self.embedded.shape[:-1])
        value, embedded = value.expand(shape), self.embedded.expand(*shape, -1)
        is_word = value != PADDING
        if value.device.type != "cpu":  # a CUDA graph needs shapes that do not depend on the data
            return torch.where(is_word, _OfWords.apply(self.words(embedded), value), 0).sum(dim=-1)
        # half of the words are padding, and a tenth of CUB's step is their logits
        n = min(-(-int(is_word.sum()) // BLOCK) * BLOCK, is_word.numel())
        rows = is_word.flatten().argsort(descending=True)[:n]
        log_p = _OfWords.apply(self.words(embedded.flatten(0, -2)[rows]), value.flatten()[rows])
        log_p = torch.where(is_word.flatten()[rows], log_p, 0)
        return embedded.new_zeros(is_word.numel()).index_copy(0, rows, log_p).view(shape).sum(dim=-1)


def _padded(words: Tensor) -> Tensor:
    """Words (..., LENGTH) with padding after the first <eos>."""
    end = words == END
    return words.masked_fill(end.cumsum(dim=-1) - end.long() > 0, PADDING)


class _OfWords(torch.autograd.Function):
    """log p (...) of words (...) from logits (..., V), which it overwrites: nothing else needs so much memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, words: Tensor) -> Tensor:
        torch.log_softmax(logits, dim=-1, out=logits)
        ctx.save_for_backward(logits, words)
        return logits.gather(-1, words.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        log_p, words = ctx.saved_tensors
        g = g.unsqueeze(-1)
        gradient = log_p.exp().mul_(-g)
        return gradient.scatter_add_(-1, words.unsqueeze(-1), g), None


class VocabularyLayer(nn.Linear):
    """A decoder's last layer, (..., E) -> logits (..., V), with an embedding's weights.

    In the decoder it passes on its input: the likelihood calls `logits` for the words that a caption has.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__(embedding.embedding_dim, embedding.num_embeddings)
        self.weight = embedding.weight

    def forward(self, embedded: Tensor) -> Tensor:
        return embedded

    def logits(self, embedded: Tensor) -> Tensor:
        """The linear layer itself."""
        return super().forward(embedded)


class CaptionLikelihood(nn.Module):
    """Likelihood of captions, from a decoder's output (..., LENGTH, E).

    Args:
        words: from it to logits (..., LENGTH, V).
    """

    def __init__(self, words: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.words = words

    def forward(self, embedded: Tensor) -> Captions:
        """Distribution of captions."""
        return Captions(embedded, self.words)

    def point(self, p: Captions) -> Tensor:
        """The most likely captions (..., LENGTH) int64."""
        return p.mode
