"""Strategies fuse the experts: stacked parameters of q(z|x_m) in, parameters of q(z|x_S) out."""

from torch import Tensor, nn

from common.experts import product_of_experts


class GaussianPoeStrategy(nn.Module):
    """The product of Gaussian experts and the prior (`common.experts.product_of_experts`)."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return product_of_experts(*params, mask)
