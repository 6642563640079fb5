"""MMVAE with the names, signatures and objects of MultiVae, made of this repository's pieces; README.md says more."""

from multivae_api.config import MMVAEConfig
from multivae_api.data import (
    BaseDecoder,
    BaseEncoder,
    DatasetOutput,
    IncompleteDataset,
    ModelOutput,
    MultimodalBaseDataset,
)
from multivae_api.mmvae import MMVAE

__all__ = [
    "MMVAE",
    "BaseDecoder",
    "BaseEncoder",
    "DatasetOutput",
    "IncompleteDataset",
    "MMVAEConfig",
    "ModelOutput",
    "MultimodalBaseDataset",
]
