"""Distributions that torch.distributions lacks, with its interface."""

from common.distributions.energy import LocScaleEbm
from common.distributions.flows import JointFlows
from common.distributions.location_scale import DiagonalGaussian, Joined, LaplaceOrNormal
from common.distributions.mixtures import Mixture
from common.distributions.von_mises_fisher import HypersphericalUniform, VonMisesFisher

__all__ = [
    "DiagonalGaussian",
    "HypersphericalUniform",
    "Joined",
    "JointFlows",
    "LaplaceOrNormal",
    "LocScaleEbm",
    "Mixture",
    "VonMisesFisher",
]
