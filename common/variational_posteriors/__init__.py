"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. A learned prior is in such a family too."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Posterior"],
        "location_scale": [
            "DiagonalGaussianPosterior",
            "LaplaceOrNormalPosterior",
            "LaplacePosterior",
            "SoftplusPosterior",
        ],
        "von_mises_fisher": ["VmfProductPosterior"],
        "energy": ["LocScaleEbmPosterior"],
        "flows": ["JointFlowsPosterior"],
        "mixtures": ["MixturePosterior", "PrivateLatentsMixture"],
    },
)
