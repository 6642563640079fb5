"""Mixtures with samples that have gradients."""

from torch import Tensor
from torch.distributions import MixtureSameFamily


class Mixture(MixtureSameFamily):
    """torch's mixture, whose samples have gradients too, wherever those of its components do.

    The gradients reach the parameters of the drawn component, not the weights. They are exact if the weights depend on
    no parameters, as in mixtures of experts.
    """

    @property
    def has_rsample(self) -> bool:
        return self.component_distribution.has_rsample

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Samples of components that are drawn by their weights, (*sample_shape, ..., D)."""
        t = self.mixture_distribution.sample(sample_shape)  # (*sample_shape, ...)
        z = self.component_distribution.rsample(sample_shape)  # (*sample_shape, ..., T, D)
        index = t[..., None, None].expand(*t.shape, 1, z.shape[-1])
        return z.gather(-2, index).squeeze(-2)
