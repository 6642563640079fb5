"""The Variational Homoencoder: a framework for latent variables that examples share in groups, and Omniglot."""

from vhe.homoencoder import VHE, Result
from vhe.support_sets import Batch, DataLoader, SupportSets, Transform

__all__ = ["VHE", "Batch", "DataLoader", "Result", "SupportSets", "Transform"]
