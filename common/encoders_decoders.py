"""Blocks that the experiments' networks are built from. Networks see (N, ...): the model flattens (K, B) to N."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv_transpose2d, pad

CACHED = 1_000_000  # numbers of a hidden layer that fit a CPU's cache: smaller batches are up to three times as fast
FEW_CHANNELS = 3  # a transposed convolution to so few channels is faster on a CPU as a product
MANY_CHANNELS = 64  # from so many on, gradients in bfloat16 are faster on a CPU as products
PRODUCT_NUMBERS = 1_000_000  # of a product at once, which a processor's cache holds


class SplitLinearLayer(nn.Module):
    """Several linear heads on one input, computed as a single product: (N, in) -> a tuple of (N, out_i)."""

    def __init__(self, in_features: int, out_features: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, sum(out_features), bias=bias)
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x).split(self.out_features, dim=-1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution, on a CPU without the parts of it at which oneDNN is slow.

    The gradient of the bias takes oneDNN up to a third of the backward pass, and the bias itself, in float32, up to
    half of the forward pass. A convolution to a few channels in float32, such as a decoder's last layer, leaves most of
    a processor's vectors empty. In bfloat16 the gradients of layers with many channels take half of the time as matrix
    products.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        inputs = [x, self.weight, self.bias]
        if torch.is_autocast_enabled("cpu"):
            inputs = [None if y is None else y.to(torch.get_autocast_dtype("cpu")) for y in inputs]
        return _Transposed.apply(*inputs, self.stride, self.padding, self.output_padding)


class _Transposed(torch.autograd.Function):
    """The function of `ConvTranspose2d`."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, *shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        if x.dtype == torch.bfloat16:
            return conv_transpose2d(x, weight, bias, *shape)
        y = conv_transpose2d(x, weight, None, *shape) if weight.shape[1] > FEW_CHANNELS else _sums(x, weight, *shape)
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding, output_padding) = ctx.saved_tensors, ctx.shape
        bias = g.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        if g.dtype == torch.bfloat16 and weight.shape[1] >= MANY_CHANNELS:
            return *_as_products(g, x, weight, *ctx.shape), bias, None, None, None
        needed = [*ctx.needs_input_grad[:2], False]
        gradients = torch.ops.aten.convolution_backward(
            g, x, weight, None, stride, padding, (1, 1), True, output_padding, 1, needed
        )
        return *gradients[:2], bias, None, None, None


def _sums(x: Tensor, weight: Tensor, *shape: tuple[int, int]) -> Tensor:
    """A transposed convolution without bias, (N, in, H, W) -> (N, out, H, W): products, added up where they belong."""
    axes = list(zip(x.shape[2:], weight.shape[2:], *shape, strict=True))
    size = [(n - 1) * stride - 2 * padding + kernel + extra for n, kernel, stride, padding, extra in axes]
    y = x.new_zeros(len(x), weight.shape[1], *size)
    rows, columns = (_taps(*axis[:4], total) for axis, total in zip(axes, size, strict=True))
    flat = weight.flatten(1).mT.contiguous()  # (out * kernel, in)
    n = max(1, PRODUCT_NUMBERS // (x.shape[2:].numel() * len(flat)))  # examples in a product
    for part, out in zip(x.split(n), y.split(n), strict=True):
        products = (flat @ part.flatten(2)).view(len(part), *weight.shape[1:], *x.shape[2:])
        for i, (seen_rows, out_rows) in enumerate(rows):
            for j, (seen_columns, out_columns) in enumerate(columns):
                out[..., out_rows, out_columns] += products[:, :, i, j, seen_rows, seen_columns]
    return y


def _as_products(g: Tensor, x: Tensor, weight: Tensor, *shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The gradients of a transposed convolution's input (N, in, H, W) and weight (in, out, kernel), from g.

    Both are products of the windows of g that each input adds to, (N * H * W, kernel * out).
    """
    n, (height, width), kernel = len(x), x.shape[2:], weight.shape[2:]
    (down, right), (top, left), (extra_rows, extra_columns) = shape
    g = pad(g, (left, left - extra_columns, top, top - extra_rows)).permute(0, 2, 3, 1).contiguous()
    of_image, of_row, of_column, _ = g.stride()
    strides = of_image, down * of_row, right * of_column, of_row, of_column, 1
    windows = g.as_strided((n, height, width, *kernel, g.shape[3]), strides).flatten(0, 2).flatten(1)
    flat = weight.permute(0, 2, 3, 1).flatten(1)  # (in, kernel * out)
    of_input = (windows @ flat.mT).view(n, height, width, len(flat)).permute(0, 3, 1, 2)
    of_weight = x.permute(0, 2, 3, 1).flatten(0, 2).mT @ windows
    return of_input, of_weight.view(len(flat), *kernel, g.shape[3]).permute(0, 3, 1, 2)


def _taps(n: int, kernel: int, stride: int, padding: int, size: int) -> list[tuple[slice, slice]]:
    """The inputs that each element of a kernel multiplies along one axis, and the outputs it adds them to.

    Args:
        n: number of inputs.
        size: number of outputs.
    """
    taps = []
    for tap in range(kernel):
        first = max(0, -((tap - padding) // stride))
        last = max(first, min(n, (size - 1 + padding - tap) // stride + 1))
        start = first * stride + tap - padding
        taps.append((slice(first, last), slice(start, start + (last - first) * stride, stride)))
    return taps


class FromPixel(nn.ConvTranspose2d):
    """A transposed convolution of a single pixel, computed as a matrix product: (N, in, 1, 1) -> (N, out, size, size).

    Four times as fast on a CPU as the convolution, with the same parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1)  # (in, size, size, out)
        x, flat, shape = x.flatten(1), weight.flatten(1), weight.shape[1:]
        x = x @ flat if self.bias is None else torch.addmm(self.bias.repeat(shape[0] * shape[1]), x, flat)
        return x.unflatten(1, shape).permute(0, 3, 1, 2)


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
        outputs = [self._forward_chunk(chunk) for chunk in x.split(size)]
        if isinstance(outputs[0], Tensor):
            return torch.cat(outputs)
        return tuple(torch.cat(chunks) for chunks in zip(*outputs, strict=True))

    def _forward_chunk(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The same as `forward`, in a single batch."""
        return self.rest(super().forward(self.first(x)))


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
    """Whether some of a training batch's rows alone give the same outputs again: without batch norm and dropout."""
    dropout = nn.modules.dropout._DropoutNd
    return not has_batch_norm(network) and not any(isinstance(module, dropout) for module in network.modules())


def swish_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes, each followed by swish(x) = x * sigmoid(x)."""
    return nn.Sequential(*(layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.SiLU())))
