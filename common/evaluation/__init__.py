"""Metrics of one kind each: what a model generates, what its latents hold, and the networks that judge them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "classifiers",
        "latent_clusters",
        "latent_mixtures",
        "right_labels",
        "subset_likelihoods",
    ],
    submod_attrs={
        "encoded": ["Encoded", "encode"],
        "frechet_distances": ["FrechetDistance"],
        "reconstructions": ["ssim"],
        "subset_metrics": ["scores_by_size", "scores_by_subset"],
    },
)
