"""Transposed convolutions that avoid what is slow on a CPU.

They take batches (N, C, H, W). On a CPU they have first derivatives only, and none inside torch.vmap.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import conv_transpose2d, pad

FEW_CHANNELS = 3  # a transposed convolution to at most these channels is faster on a CPU as a product
MANY_CHANNELS = 64  # from this many channels on, gradients in bfloat16 are faster on a CPU as products
PRODUCT_NUMBERS = 1_000_000  # of a product at once, which a processor's cache holds


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution, on a CPU without the parts of it at which oneDNN is slow.

    The gradient of the bias takes oneDNN up to a third of the backward pass, and the bias itself, in float32, up to
    half of the forward pass. A convolution to a few channels in float32, such as a decoder's last layer, leaves most of
    a processor's vectors empty. In bfloat16 the gradients of layers with many channels take half of the time as matrix
    products.
    """

    def forward(self, x: Tensor) -> Tensor:
        is_plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or not is_plain:
            return super().forward(x)
        inputs = x, self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            inputs = (y if y is None else y.to(torch.get_autocast_dtype("cpu")) for y in inputs)
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
    stride, (top, left), (extra_rows, extra_columns) = shape
    images = pad(g, (left, left - extra_columns, top, top - extra_rows)).permute(0, 2, 3, 1).contiguous()
    of_image, of_row, of_column, _ = images.stride()
    strides = of_image, stride[0] * of_row, stride[1] * of_column, of_row, of_column, 1
    windows = images.as_strided((len(x), *x.shape[2:], *weight.shape[2:], g.shape[1]), strides)
    windows = windows.flatten(0, 2).flatten(1)
    flat = weight.permute(0, 2, 3, 1).flatten(1)  # (in, kernel * out)
    of_input = (windows @ flat.mT).view(len(x), *x.shape[2:], len(flat)).permute(0, 3, 1, 2)
    of_weight = x.permute(0, 2, 3, 1).flatten(0, 2).mT @ windows
    return of_input, of_weight.view(len(flat), *weight.shape[2:], g.shape[1]).permute(0, 3, 1, 2)


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
