"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from common.models.fusions import MVAE, VAE
from common.multimodal_vae import MultimodalVAE
from multivae_api.config import MMVAEConfig
from multivae_api.mmvae import MMVAE

__all__ = ["MMVAE", "MVAE", "VAE", "MMVAEConfig", "MultimodalVAE"]
