"""Blocks that the experiments' networks are built from. Networks see (N, ...) only: the model flattens (K, B)."""

from itertools import pairwise

from torch import Tensor, nn


class SplitLinearLayer(nn.Module):
    """Linear heads on one input: (N, in) -> a tuple of (N, out_i), computed as a single product."""

    def __init__(self, in_features: int, out_features: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, sum(out_features))
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x).split(self.out_features, dim=-1)


def swish_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by swish(x) = x * sigmoid(x)."""
    return nn.Sequential(*(layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.SiLU())))
