"""Models whose latent variables groups of examples share: the model and its bound, support sets, estimates of log p."""

from vhe.framework.distributions import NormalPrior, Result
from vhe.framework.factors import Factors
from vhe.framework.homoencoder import VHE
from vhe.framework.support_sets import Batch, DataLoader, SupportSets, Transform

__all__ = ["VHE", "Batch", "DataLoader", "Factors", "NormalPrior", "Result", "SupportSets", "Transform"]
