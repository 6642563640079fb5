"""Batches, splits and pairing; dataset files and caches on disk; streams of data larger than a device's memory."""

from common.data.arrays import mapped_rows
from common.data.batches import Batch, Examples, observe
from common.data.splits import draw_paired, hold_out, unpair
from common.data.streams import Stream

__all__ = ["Batch", "Examples", "Stream", "draw_paired", "hold_out", "mapped_rows", "observe", "unpair"]
