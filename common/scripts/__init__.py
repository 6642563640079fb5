"""What the scripts of several folders share after training: analyses, log-likelihoods, few labels, publishing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["analysis", "mmvae_likelihoods", "options", "publish", "weak_supervision"]
)
