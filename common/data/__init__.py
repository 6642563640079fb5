"""Batches, splits and pairing; dataset files and caches on disk."""

from common.data.arrays import mapped_rows
from common.data.batches import Batch, Examples, observe
from common.data.splits import draw_paired, hold_out, unpair

__all__ = ["Batch", "Examples", "draw_paired", "hold_out", "mapped_rows", "observe", "unpair"]
