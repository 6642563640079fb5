"""Batches, splits and pairing; dataset files and caches on disk; streams of data larger than a device's memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["array_caches", "image_caches", "torchvision_import"],
    submod_attrs={
        "batches": ["Batch", "Examples", "observe"],
        "files": ["download", "find"],
        "npy_files": ["mapped_rows"],
        "splits": ["draw_paired", "hold_out", "unpair"],
        "streams": ["Stream"],
        "zip_files": ["unpack"],
    },
)
