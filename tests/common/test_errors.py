import pytest

from common.errors import InputError, brief, require


@pytest.mark.parametrize("n", [1, 200])
def test_a_short_message_is_shown_whole(n):
    assert brief(ValueError("x" * n)) == "x" * n


def test_a_long_message_is_cut_and_of_one_line():
    assert brief("ab \n" * 200) == "ab " * 66 + "ab..."


def test_what_is_required_and_fails_is_said():
    require(True, "no")
    with pytest.raises(InputError, match="no"):
        require(False, "no")
