"""Distributions that torch.distributions lacks, with its interface."""

from common.distributions.energy import LocScaleEbm
from common.distributions.flows import JointFlows
from common.distributions.location_scale import DiagonalGaussian, LaplaceOrNormal, Spheres
from common.distributions.mixtures import Mixture
from common.distributions.von_mises_fisher import HypersphericalUniform, VonMisesFisher

__all__ = [
    "DiagonalGaussian",
    "HypersphericalUniform",
    "JointFlows",
    "LaplaceOrNormal",
    "LocScaleEbm",
    "Mixture",
    "Spheres",
    "VonMisesFisher",
]
