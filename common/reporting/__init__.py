"""Tables, pictures and maps of latents."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["generated", "plots", "sample_files", "tables", "training_curves", "umap"]
)
