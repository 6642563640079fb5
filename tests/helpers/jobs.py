"""Work for processes that a test starts, which import no more than this."""

import contextlib
import os
import time

from common.errors import InputError


def sleep_or_fail(config):
    if config == 0:
        raise InputError("the first one fails")
    if config == -1:
        os._exit(9)
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(120)
