"""Blocks that the experiments' networks are built from. Networks see (N, ...) only: the model flattens (K, B)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

CACHED = 1_000_000  # numbers of a hidden layer at once on a CPU, which its cache holds: up to three times as fast


class SplitLinearLayer(nn.Module):
    """Linear heads on one input: (N, in) -> a tuple of (N, out_i), computed as a single product."""

    def __init__(self, in_features: int, out_features: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, sum(out_features), bias=bias)
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x).split(self.out_features, dim=-1)


class FromPixel(nn.ConvTranspose2d):
    """A transposed convolution of a single pixel, (N, in, 1, 1) -> (N, out, size, size), as the product that it is.

    On a CPU four times as fast as the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1)  # (in, size, size, out)
        x, flat, shape = x.flatten(1), weight.flatten(1), weight.shape[1:]
        x = x @ flat if self.bias is None else torch.addmm(self.bias.repeat(shape[0] * shape[1]), x, flat)
        return x.unflatten(1, shape).permute(0, 3, 1, 2)


class GatherLayer(nn.Module):
    """What one network says of several modalities of one shape, as one tensor: a tuple of (N, ...) -> (N, M, ...)."""

    def forward(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return torch.stack(outputs, dim=1)


class SharedNetwork(nn.Module):
    """One network for n like modalities, in the vectorised layout, told apart by learned embeddings.

    An encoder's x (N, n, d) -> (N, n, ...), a decoder's z (N, D) -> (N, n, ...). Of the two embeddings of each, one
    scales what the first layer says and one is added (FiLM, Perez et al. 2018, arXiv 1709.07871): added alone, as to an
    input side by side with an embedding, it leaves elements too much alike to learn by.

    Args:
        first: layer d -> H.
        rest: (N, n, H) -> (N, n, ...), alike for all elements, without batch norm: it sees absent elements too.
    """

    def __init__(self, n: int, first: nn.Linear, rest: nn.Module) -> None:
        super().__init__()
        self.n_elements, self.first, self.rest = n, first, rest
        self.scale = nn.Parameter(torch.randn(n, first.out_features))
        self.shift = nn.Parameter(torch.randn(n, first.out_features))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = max(1, CACHED // self.scale.numel()) if x.device.type == "cpu" else len(x)
        parts = [self._of_some(some) for some in x.split(size)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(of_each) for of_each in zip(*parts, strict=True))

    def _of_some(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        h = self.first(x)
        return self.rest(torch.addcmul(self.shift, h if x.dim() == 3 else h.unsqueeze(1), self.scale))


class StackedLinear(nn.Module):
    """n linear layers of one shape, each on its own input (n, N, in), or all on one (N, in): (n, N, out)."""

    def __init__(self, n: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # nn.Linear's
        self.weight = nn.Parameter(torch.empty(n, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.expand(len(self.weight), *x.shape[-2:]), self.weight.mT)


class StackedDecoder(nn.Module):
    """n decoders of one shape in one, for like modalities: z (N, D), or one for each, (n, N, D) -> (N, n, ...).

    Args:
        network: of `StackedLinear` layers and what acts on each number alone, z -> (n, N, ...).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).movedim(0, 1)


class NetworkList(nn.Module):
    """A network for each modality, in the list layout: M inputs -> a list of M outputs."""

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor | tuple[Tensor, ...]]:
        return [network(x) for network, x in zip(self.networks, xs, strict=True)]


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def swish_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by swish(x) = x * sigmoid(x)."""
    return nn.Sequential(*(layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.SiLU())))
