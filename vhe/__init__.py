"""The Variational Homoencoder: a framework for latent variables shared by groups of examples, and its experiment."""

import common  # isort: skip  # noqa: F401 (before torch, whose threads it tells how to wait)

from vhe.framework import VHE, Batch, DataLoader, Factors, NormalPrior, Result, SupportSets, Transform

__all__ = ["VHE", "Batch", "DataLoader", "Factors", "NormalPrior", "Result", "SupportSets", "Transform"]
