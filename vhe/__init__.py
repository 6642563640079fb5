"""The Variational Homoencoder: a framework for latent variables shared by groups of examples, and its experiment."""

from vhe.framework import VHE, Batch, DataLoader, Result, SupportSets, Transform

__all__ = ["VHE", "Batch", "DataLoader", "Result", "SupportSets", "Transform"]
