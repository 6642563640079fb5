from common.errors import brief

import pytest


@pytest.mark.parametrize("n", [1, 200])
def test_a_short_message_is_shown_whole(n):
    assert brief(ValueError("x" * n)) == "x" * n


def test_a_long_message_is_cut_and_of_one_line():
    assert brief("ab \n" * 200) == "ab " * 66 + "ab..."
