"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["choices", "families", "fusions"],
    submod_attrs={"assemblies": ["MMVAE", "MVAE", "VAE", "MMVAEConfig", "MultimodalVAE"]},
)
