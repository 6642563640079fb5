"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. A learned prior is in such a family too."""

from common.variational_posteriors.base import Posterior
from common.variational_posteriors.energy import LocScaleEbmPosterior
from common.variational_posteriors.flows import JointFlowsPosterior
from common.variational_posteriors.location_scale import (
    DiagonalGaussianPosterior,
    LaplaceOrNormalPosterior,
    LaplacePosterior,
    SoftplusPosterior,
)
from common.variational_posteriors.mixtures import MixturePosterior, PrivateLatentsMixture
from common.variational_posteriors.von_mises_fisher import VmfProductPosterior

__all__ = [
    "DiagonalGaussianPosterior",
    "JointFlowsPosterior",
    "LaplaceOrNormalPosterior",
    "LaplacePosterior",
    "LocScaleEbmPosterior",
    "MixturePosterior",
    "Posterior",
    "PrivateLatentsMixture",
    "SoftplusPosterior",
    "VmfProductPosterior",
]
