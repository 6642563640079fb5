"""A conditional gated PixelCNN for binary images (van den Oord et al. 2016, arXiv 1606.05328)."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

_FIRST_KERNEL = 7  # width of the convolutions that see the image itself


class GatedPixelCNN(nn.Module):
    """p(x|context): each pixel is a Bernoulli variable given the context and all pixels before it in raster order.

    A vertical stack, with half the channels, reads the rows above a pixel. A horizontal stack reads the pixels to its
    left, and the vertical stack. The context enters every layer at its own place, so that a pixel sees the context of
    its row and of the rows above; the context itself must hold what lies below.

    Args:
        context_channels: the number of channels C of the context.
        channels: the number of channels of the horizontal stack, even.
        n_layers: the number of gated layers, which follow a first convolution of the image.
        kernel: the width of the gated layers, odd.
    """

    has_mean = False  # images can be drawn, but their mean is unknown

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
        self.to(memory_format=torch.channels_last)  # trains faster on a CPU

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the logits (N, 1, H, W) of the images x (N, 1, H, W), 0 or 1, given context (N, C, H, W)."""
        x = _signed(x)
        vertical = self.first_down(self.first_down.pad(F.pad(x, (0, 0, 1, -1))))  # moved down: sees the rows above
        horizontal = self.first_right(
            self.first_right.pad(F.pad(x, (1, -1)))
        )  # moved right: sees the pixels to the left
        for layer, c in zip(self.layers, self._contexts(context), strict=True):
            vertical, features = layer.vertical(layer.down.pad(vertical), c)
            horizontal = layer.horizontal(layer.right.pad(horizontal), features)
        return self.logits(horizontal)

    @torch.no_grad()
    def sample(self, context: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw images (N, 1, H, W), 0 or 1, given context (N, C, H, W).

        For each layer the inputs that it reads again are kept, so that all pixels together cost about one `forward`.
        """
        n, _, height, width = context.shape
        device = generator.device if generator else context.device
        uniforms = torch.rand(n, 1, height, width, generator=generator, dtype=context.dtype, device=device).to(context)
        contexts = self._contexts(context)
        downs = [self.first_down, *(layer.down for layer in self.layers)]
        above = [down.pad(context.new_zeros(n, down.in_channels, 1, width)) for down in downs]
        row = context.new_zeros(n, 1, 1, width)
        rows = []
        for i in range(height):
            above[0] = _push(above[0], row, dim=2)
            vertical, features = self.first_down(above[0]), []
            for k, (layer, c) in enumerate(zip(self.layers, contexts, strict=True), start=1):
                above[k] = _push(above[k], vertical, dim=2)
                vertical, layer_features = layer.vertical(above[k], c[:, :, i : i + 1])
                features.append(layer_features)
            rows.append(self._sample_row(uniforms[:, :, i : i + 1], features))
            row = _signed(rows[-1])
        return torch.cat(rows, dim=2)

    def _sample_row(self, uniforms: Tensor, features: list[Tensor]) -> Tensor:
        """Draw a row of pixels (N, 1, 1, W) given what each layer's vertical stack hands to the horizontal one.

        Args:
            uniforms: random numbers that decide the pixels, (N, 1, 1, W).
            features: (N, 2 channels, 1, W) for each layer.
        """
        n, _, _, width = uniforms.shape
        rights = [self.first_right, *(layer.right for layer in self.layers)]
        left = [right.pad(uniforms.new_zeros(n, right.in_channels, 1, 1)) for right in rights]
        pixel = uniforms.new_zeros(n, 1, 1, 1)
        row = torch.empty_like(uniforms)
        for j in range(width):
            left[0] = _push(left[0], pixel, dim=3)
            horizontal = self.first_right(left[0])
            for k, (layer, layer_features) in enumerate(zip(self.layers, features, strict=True), start=1):
                left[k] = _push(left[k], horizontal, dim=3)
                horizontal = layer.horizontal(left[k], layer_features[..., j : j + 1])
            p = self.logits(horizontal).sigmoid()  # (N, 1, 1, 1)
            row[..., j : j + 1] = (uniforms[..., j : j + 1] < p).to(row)
            pixel = _signed(row[..., j : j + 1])
        return row

    def _contexts(self, context: Tensor) -> tuple[Tensor, ...]:
        """Return what the context adds to each layer, (N, channels, H, W) each."""
        return self.context(context).chunk(len(self.layers), dim=1)


class _Causal(nn.Conv2d):
    """A convolution that reads up to its own pixel, if `pad` adds rows above or columns to the left of its input."""

    @classmethod
    def down(cls, n_inputs: int, n_outputs: int, kernel: int) -> "_Causal":
        """Return a convolution that reads a row and the rows above it."""
        return cls(n_inputs, n_outputs, (kernel // 2 + 1, kernel), padding=(0, kernel // 2))

    @classmethod
    def right(cls, n_inputs: int, n_outputs: int, kernel: int) -> "_Causal":
        """Return a convolution that reads a pixel and the pixels to its left."""
        return cls(n_inputs, n_outputs, (1, kernel // 2 + 1))

    def pad(self, x: Tensor) -> Tensor:
        """Pad x (N, C, H, W) with zeros, so that the output has its height and width."""
        (rows, columns), sides = self.kernel_size, self.padding[1]
        return F.pad(x, (columns - 1 - 2 * sides, 0, rows - 1, 0))


class _Layer(nn.Module):
    """A gated layer of both stacks, residual in the horizontal one, which the context reaches through `across`."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.down = _Causal.down(channels // 2, channels, kernel)
        self.right = _Causal.right(channels, 2 * channels, kernel)
        self.across = nn.Conv2d(channels, 2 * channels, 1)
        self.residual = nn.Conv2d(channels, channels, 1)

    def vertical(self, padded: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vertical stack's next value, and the features that it hands to the horizontal stack."""
        features = self.down(padded) + context
        return _gate(features), self.across(features)

    def horizontal(self, padded: Tensor, features: Tensor) -> Tensor:
        """Return the horizontal stack's next value, given the features of the vertical one."""
        x = padded[..., self.right.kernel_size[1] - 1 :]
        return x + self.residual(_gate(self.right(padded) + features))


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def _push(window: Tensor, new: Tensor, dim: int) -> Tensor:
    """Drop the first row or column of a window and append a new one."""
    return torch.cat((window.narrow(dim, 1, window.shape[dim] - 1), new), dim)


def _signed(x: Tensor) -> Tensor:
    """Map 0 and 1 to -1 and 1, so that the zeros of the padding show where the image ends."""
    return 2 * x - 1
