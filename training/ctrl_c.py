"""Ctrl-C during a training."""

import signal
import sys
from types import FrameType

from common import distributed


class CtrlC:
    """While open, the first Ctrl-C only sets `asked`, so that no step is cut in two; the second stops at once."""

    asked = False

    def __enter__(self) -> "CtrlC":
        self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if distributed.rank() == 0:
            print("\nstopping after this batch (Ctrl-C again: at once)", file=sys.stderr)
