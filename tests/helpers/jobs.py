"""Work for processes that a test starts, which import no more than this."""

import contextlib
import os
import time

from common.errors import InputError


def sleep_or_fail(config):
    if config == 0:
        raise InputError("the first one fails")
    if config == -2:
        raise MemoryError("no memory is left")
    if config == -1:
        os._exit(9)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(120)


def later_the_smaller(x):
    """x, after a while that is longer for smaller x; nothing is returned of negative ones."""
    if x < 0:
        raise InputError(f"{x} is negative")
    time.sleep(0.3 / (1 + x))
    return x
