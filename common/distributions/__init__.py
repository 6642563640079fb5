"""Distributions that torch.distributions lacks, with its interface."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "location_scale": ["DiagonalGaussian", "Joined", "LaplaceOrNormal"],
        "von_mises_fisher": ["HypersphericalUniform", "VonMisesFisher"],
        "mixtures": ["Mixture"],
        "energy": ["LocScaleEbm"],
        "flows": ["JointFlows"],
    },
)
