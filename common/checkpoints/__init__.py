"""Trained models on disk: those of our files and of the original authors'."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "experiment_modules": ["EXPERIMENTS"],
        "authors_files": ["Size"],
        "saved_models": [
            "BEST",
            "FORMAT",
            "LAST",
            "OPTIONS",
            "PUBLISHED",
            "Name",
            "NetworkOptions",
            "Saved",
            "check_fit",
            "experiment_of",
            "load",
            "load_config",
            "load_model",
            "start_from",
        ],
    },
)
