"""A gated PixelCNN given a context, for binary images (van den Oord et al. 2016, arXiv 1606.05328)."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

_FIRST_KERNEL = 7  # of the convolutions that see the image itself


class GatedPixelCNN(nn.Module):
    """p(x | context): a Bernoulli a pixel, given all pixels before it in raster order.

    A vertical stack, of half as many channels, reads the rows above a pixel; a horizontal one reads the pixels to its
    left and the vertical stack. The context enters every layer where it stands; a pixel sees that of its own row and
    of the rows above, so what lies below must be brought there by the network that makes the context.

    Args:
        context_channels: of the context.
        channels: of the horizontal stack, even.
        n_layers: of gated layers, after a first convolution of the image.
        kernel: the width of the gated layers, odd.
    """

    def __init__(self, context_channels: int, channels: int = 32, n_layers: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.first_down = _Causal.down(1, channels // 2, _FIRST_KERNEL)
        self.first_right = _Causal.right(1, channels, _FIRST_KERNEL)
        self.layers = nn.ModuleList(_Layer(channels, kernel) for _ in range(n_layers))
        self.context = nn.Conv2d(context_channels, n_layers * channels, 1)
        self.logits = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(channels, channels, 1)),
            *(nn.ReLU(), nn.Conv2d(channels, 1, 1)),
        )
        self.to(memory_format=torch.channels_last)  # which trains faster on a CPU

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of the images x (N, 1, H, W), 0 or 1, given context (N, C, H, W)."""
        x = _signed(x)
        vertical = self.first_down(self.first_down.pad(F.pad(x, (0, 0, 1, -1))))  # moved down: only rows above
        horizontal = self.first_right(self.first_right.pad(F.pad(x, (1, -1))))  # moved right: only pixels to the left
        for layer, c in zip(self.layers, self._contexts(context), strict=True):
            vertical, features = layer.vertical(layer.down.pad(vertical), c)
            horizontal = layer.horizontal(layer.right.pad(horizontal), features)
        return self.logits(horizontal)

    @torch.no_grad()
    def sample(self, context: Tensor, generator: Generator | None = None) -> Tensor:
        """Images (N, 1, H, W), 0 or 1, given context (N, C, H, W).

        Keeps of each layer the inputs that it reads again, so that all pixels together cost about one `forward`.
        """
        n, _, height, width = context.shape
        device = generator.device if generator else context.device
        uniforms = torch.rand(n, 1, height, width, generator=generator, dtype=context.dtype, device=device).to(context)
        downs = [self.first_down, *(layer.down for layer in self.layers)]
        rights = [self.first_right, *(layer.right for layer in self.layers)]
        contexts = self._contexts(context)
        x = torch.empty_like(uniforms)
        row = context.new_zeros(n, 1, 1, width)
        above = [down.pad(context.new_zeros(n, down.in_channels, 1, width)) for down in downs]
        for i in range(height):
            above[0] = _push(above[0], row, dim=2)
            vertical, features = self.first_down(above[0]), []
            for k, (layer, c) in enumerate(zip(self.layers, contexts, strict=True), start=1):
                above[k] = _push(above[k], vertical, dim=2)
                vertical, f = layer.vertical(above[k], c[:, :, i : i + 1])
                features.append(f)
            pixel = context.new_zeros(n, 1, 1, 1)
            left = [right.pad(context.new_zeros(n, right.in_channels, 1, 1)) for right in rights]
            for j in range(width):
                left[0] = _push(left[0], pixel, dim=3)
                horizontal = self.first_right(left[0])
                for k, (layer, f) in enumerate(zip(self.layers, features, strict=True), start=1):
                    left[k] = _push(left[k], horizontal, dim=3)
                    horizontal = layer.horizontal(left[k], f[..., j : j + 1])
                p = self.logits(horizontal)[..., 0, 0].sigmoid()
                x[..., i, j] = (uniforms[..., i, j] < p).to(x)
                pixel = _signed(x[..., i : i + 1, j : j + 1])
            row = _signed(x[..., i : i + 1, :])
        return x

    def _contexts(self, context: Tensor) -> tuple[Tensor, ...]:
        return self.context(context).chunk(len(self.layers), dim=1)  # (N, channels, H, W) a layer


class _Causal(nn.Conv2d):
    """A convolution that ends at its own pixel: `pad` what it reads by rows above or columns to the left."""

    @classmethod
    def down(cls, n_inputs: int, n_outputs: int, kernel: int) -> "_Causal":
        """Reads a row and those above."""
        return cls(n_inputs, n_outputs, (kernel // 2 + 1, kernel), padding=(0, kernel // 2))

    @classmethod
    def right(cls, n_inputs: int, n_outputs: int, kernel: int) -> "_Causal":
        """Reads a pixel and those to its left."""
        return cls(n_inputs, n_outputs, (1, kernel // 2 + 1))

    def pad(self, x: Tensor) -> Tensor:
        (rows, columns), sides = self.kernel_size, self.padding[1]
        return F.pad(x, (columns - 1 - 2 * sides, 0, rows - 1, 0))


class _Layer(nn.Module):
    """A gated layer of both stacks, residual in the horizontal one; the context reaches that through `across`."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.down = _Causal.down(channels // 2, channels, kernel)
        self.right = _Causal.right(channels, 2 * channels, kernel)
        self.across = nn.Conv2d(channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)

    def vertical(self, padded: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack's next value and what it gives to the horizontal one."""
        features = self.down(padded) + context
        return _gate(features), self.across(features)

    def horizontal(self, padded: Tensor, features: Tensor) -> Tensor:
        x = padded[..., self.right.kernel_size[1] - 1 :]
        return x + self.residual(_gate(self.right(padded) + features))


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def _push(window: Tensor, new: Tensor, dim: int) -> Tensor:
    """The window's rows or columns moved on by one."""
    return torch.cat((window.narrow(dim, 1, window.shape[dim] - 1), new), dim)


def _signed(x: Tensor) -> Tensor:
    return 2 * x - 1  # so that the zeros of the padding tell where the image ends
