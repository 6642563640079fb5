"""MMVAE with the names, signatures and objects of MultiVae, made of this repository's pieces; README.md says more."""

import common  # isort: skip  # noqa: F401 (before torch, whose threads it tells how to wait)

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
