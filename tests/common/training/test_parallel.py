import time

import pytest

from common.errors import InputError
from common.training.parallel import in_parallel
from tests.helpers.jobs import sleep_or_fail


@pytest.mark.slow
@pytest.mark.parametrize(("first", "message"), [(0, "the first one fails"), (-1, "a run was killed")])
def test_a_run_that_fails_stops_the_others(first, message):
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        list(in_parallel(sleep_or_fail, [first, 1, 2, 3], jobs=2))
    assert time.monotonic() - started < 100, "none of the others slept its time"
