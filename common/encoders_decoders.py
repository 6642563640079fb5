"""Blocks that the experiments' networks are built from. Networks see (N, ...): the model flattens (K, B) to N."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from common.errors import InputError, require

import torch
from torch import Tensor, nn

CACHED = 1_000_000  # numbers of a hidden layer that fit a CPU's cache: smaller batches are up to three times as fast


class SplitLinearLayer(nn.Module):
    """Several linear heads on one input, computed as a single product: (N, in) -> a tuple of (N, out_i)."""

    def __init__(self, in_features: int, out_features: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, sum(out_features), bias=bias)
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x).split(self.out_features, dim=-1)


class GatherLayer(nn.Module):
    """Stack one network's outputs for M modalities of the same shape: a tuple of M (N, ...) -> (N, M, ...)."""

    def forward(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return torch.stack(outputs, dim=1)


class ConcatLayer(nn.Module):
    """Concatenate tensors along their last dimension: a tuple of (N, ..., H_i) -> (N, ..., sum of H_i)."""

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(inputs, dim=-1)


class SqueezeLayer(nn.Module):
    """Remove a dimension of size 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(self.dim)


class UnsqueezeLayer(nn.Module):
    """Insert a dimension of size 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.dim)


class ModalityEmbedding(nn.Module):
    """Tell n like modalities apart: features (N, n, H), or (N, H) that all share -> (N, n, H).

    Each modality scales the features and adds to them (FiLM, Perez et al. 2018, arXiv 1709.07871). An addition alone,
    which is also what concatenating an embedding to the input amounts to, leaves the modalities too similar to learn
    from.

    Args:
        n: the number of modalities.
        n_features: H.
        embed_dim: size of a modality's embedding, from which linear maps compute its scale and its addend. None: the
            embedding consists of these two, 2 H numbers.
    """

    def __init__(self, n: int, n_features: int, embed_dim: int | None = None) -> None:
        super().__init__()
        self.n_elements, self.embed_dim = n, embed_dim
        if embed_dim is None:
            self.scale = nn.Parameter(torch.randn(n, n_features))
            self.shift = nn.Parameter(torch.randn(n, n_features))
        else:
            self.embedding = nn.Parameter(torch.randn(n, embed_dim))
            self.scale_and_shift = SplitLinearLayer(embed_dim, (n_features, n_features), bias=False)
            nn.init.normal_(self.scale_and_shift.linear.weight, std=embed_dim**-0.5)  # so that both have variance 1

    def forward(self, h: Tensor) -> Tensor:
        own_scale = self.embed_dim is None
        scale, shift = (self.scale, self.shift) if own_scale else self.scale_and_shift(self.embedding)
        return torch.addcmul(shift, h if h.dim() == 3 else h.unsqueeze(1), scale)


class EncoderModalityEmbedding(nn.Module):
    """Append an embedding to each of n like modalities: x (N, n, d) -> (N, n, d + embed_dim), as in poe-vae.

    The first layer of an encoder; in our experiments `ModalityEmbedding` tells modalities apart better.

    Args:
        n: the number of modalities.
        embed_dim: size of a modality's embedding.
    """

    def __init__(self, n: int, embed_dim: int) -> None:
        super().__init__()
        self.n_elements, self.embedding = n, nn.Parameter(torch.randn(n, embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.embedding.expand(len(x), -1, -1)], dim=-1)


class DecoderModalityEmbedding(EncoderModalityEmbedding):
    """Append the embeddings of n like modalities to z, (N, D) -> (N, n, D + embed_dim): a decoder's first layer."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.unsqueeze(1).expand(-1, self.n_elements, -1))


class SharedNetwork(ModalityEmbedding):
    """One network for n like modalities, with a modality embedding after its first layer (the vectorised layout).

    As an encoder it maps x (N, n, d) -> (N, n, ...), as a decoder z (N, D) -> (N, n, ...).

    Args:
        n: the number of elements.
        first: layer d -> H.
        rest: (N, n, H) -> (N, n, ...), shared by all elements, without batch norm, since it sees absent elements too.
        embed_dim: see `ModalityEmbedding`.
    """

    def __init__(self, n: int, first: nn.Linear, rest: nn.Module, embed_dim: int | None = None) -> None:
        super().__init__(n, first.out_features, embed_dim)
        self.first, self.rest = first, rest
        self.chunk = max(1, CACHED // (n * first.out_features))  # examples

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        size = self.chunk if x.device.type == "cpu" else len(x)
        outputs = [self.rest(ModalityEmbedding.forward(self, self.first(chunk))) for chunk in x.split(size)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)
        return tuple(torch.cat(chunks) for chunks in zip(*outputs, strict=True))


class StackedLinear(nn.Module):
    """n linear layers of one shape, each on its own input (n, N, in), or all on the same (N, in): (n, N, out)."""

    def __init__(self, n: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(n, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(len(self.weight), *x.shape[-2:])
        # W x^T rather than x W^T: the gradient then has the weight's layout, so nothing transposes it
        return torch.baddbmm(self.bias.mT, self.weight, x.mT).mT


class StackedDecoder(nn.Module):
    """n decoders of one shape, computed together: z (N, D), or one z for each decoder (n, N, D) -> (N, n, ...).

    Args:
        network: z -> (n, N, ...), made of `StackedLinear` layers and elementwise functions.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).movedim(0, 1)


class WithMissing(nn.Module):
    """An encoder of values that may be missing: its network sees 0 where one is, and beside the values which are there.

    The network gets (N, 2 d) for values (N, d), (N, 2 C, H, W) for (N, C, H, W), and (N, n, 2 d) for a set (N, n, d).
    """

    takes_observed = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.n_elements = n_elements(network)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The values of each modality, followed by which of them are observed, bool -> the network's parameters.

        Classes (N,) of a joint encoder have nothing beside them.

        Raises:
            InputError: it is part of another network, which does not tell it what is observed.
        """
        dim, (n, lacking) = 1 if self.n_elements is None else 2, divmod(len(values), 2)
        require(not lacking, "WithMissing is a layer of another network: wrap the whole encoder in it")
        pairs = zip(values[:n], values[n:], strict=True)
        return self.network(*(x if x.dim() == 1 else torch.cat([x, seen.to(x)], dim) for x, seen in pairs))


class WithColumns(nn.Module):
    """A decoder with one learned number for each column beside its output, such as the columns' log-scales.

    The output (N, C, ...) becomes (N, 2 C, ...).

    Args:
        network: z (N, D) -> (N, C, ...).
        columns: where the numbers start, (C, 1, ...), which broadcasts to an example's output.
    """

    def __init__(self, network: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.network, self.columns = network, nn.Parameter(columns)

    def forward(self, z: Tensor) -> Tensor:
        y = self.network(z)
        return torch.cat([y, self.columns.to(y).expand_as(y)], dim=1)


def n_elements(encoder: nn.Module | None) -> int | None:
    """The number of elements if an encoder's modality is a set, None if it is not."""
    while isinstance(encoder, nn.Sequential) and isinstance(next(iter(encoder), None), EncoderModalityEmbedding):
        encoder = encoder[0]
    return getattr(encoder, "n_elements", None)


class NetworkList(nn.Module):
    """One network for each modality (the list layout): M inputs -> a list of M outputs."""

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor | tuple[Tensor, ...]]:
        return [network(x) for network, x in zip(self.networks, xs, strict=True)]


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any layer of the network is a batch norm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def is_repeatable(network: nn.Module) -> bool:
    """Whether some rows of a training batch, run again alone, give the same outputs: no batch norm, no dropout."""
    dropout = nn.modules.dropout._DropoutNd
    draws = (isinstance(x, dropout) or (isinstance(x, nn.RNNBase) and x.dropout > 0) for x in network.modules())
    return not has_batch_norm(network) and not any(draws)


def outputs(network: nn.Module, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The network's outputs.

    A single row has no statistics for batch norm: the running ones stand in for them, in training too.
    """
    if len(inputs[0]) > 1 or not network.training or not has_batch_norm(network):
        return network(*inputs)
    with evaluation_mode(network):
        return network(*inputs)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Set the network and its parts to evaluation mode, and afterwards those that were in training mode back."""
    in_training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True


@contextmanager
def statistics_if(keep: Tensor, network: nn.Module) -> Iterator[None]:
    """A context in which batch norm's running statistics change only if `keep`, a bool scalar, is True."""
    norms = (module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    running = [x for norm in norms for x in norm.buffers()]
    before = [x.clone() for x in running]
    yield
    for x, old in zip(running, before, strict=True):
        x.data.copy_(torch.where(keep, x, old))  # past autograd: the backward pass needs the batch's statistics alone


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """A context in which a module's parameters get no gradient, and its batch norm keeps the running statistics."""
    trained = [p for p in module.parameters() if p.requires_grad]
    norms = [(norm, norm.momentum) for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for p in trained:
        p.requires_grad_(False)
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
        for norm, momentum in norms:
            norm.momentum = momentum


def expert_params(network: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The parameters of an expert, each (B, D), for a set (B, n, D), that an encoder gives.

    Raises:
        InputError: it gives something else.
    """
    params = outputs(network, *inputs)
    if not isinstance(params, tuple) or any(p.dim() < 2 for p in params):
        given = [tuple(p.shape) for p in params] if isinstance(params, tuple) else f"a {type(params).__name__}"
        remedy = "SplitLinearLayer(width, (d, d)) makes them of (B, width)"
        raise InputError(f"an encoder must give a tuple of parameters (B, D), not {given}: {remedy}")
    return params


def expert_params_where(
    present: Tensor, encoder: nn.Module, *inputs: Tensor, every_row: bool = False
) -> tuple[Tensor, ...]:
    """The expert's parameters, each (B, D), computed only for the rows that are present, (B,), and 0 elsewhere.

    Args:
        every_row: compute those of all rows, so that no operation depends on which are present.
    """
    if every_row:
        params = expert_params(encoder, *(zero_where_absent(x, present) for x in inputs))
        return tuple(torch.where(present[:, None], p, 0) for p in params)
    if present.all():
        return expert_params(encoder, *inputs)
    rows = present.nonzero().squeeze(1)
    params = expert_params(encoder, *(x[rows] for x in inputs))
    return tuple(p.new_zeros(len(present), *p.shape[1:]).index_copy(0, rows, p) for p in params)


def zero_where_absent(x: Tensor, present: Tensor) -> Tensor:
    """x (B, ...) with zeros, a valid value of every modality, in the rows that are not present, (B,)."""
    return x.masked_fill(~present.view(-1, *[1] * (x.dim() - 1)), 0)


def swish_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by swish(x) = x * sigmoid(x)."""
    return nn.Sequential(*(layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.SiLU())))
