"""The Variational Homoencoder: a framework for latent variables shared by groups of examples, and its experiment."""

from vhe.framework import VHE, Batch, DataLoader, Factors, NormalPrior, Result, SupportSets, Transform

__all__ = ["VHE", "Batch", "DataLoader", "Factors", "NormalPrior", "Result", "SupportSets", "Transform"]
