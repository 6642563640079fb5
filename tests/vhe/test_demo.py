"""The demo's model, trained with its own settings."""

from tests.helpers.demos import trained
from vhe import analyse, train

import pytest


@pytest.mark.demos
def test_the_demo_tells_unseen_characters_apart_from_five_examples(tmp_path):
    trained(train, tmp_path)
    accuracy = analyse.main(analyse.Config(tmp_path, demo=True))
    assert accuracy["mean"] > 0.75, "of twenty"
