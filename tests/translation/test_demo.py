"""The demo's model, trained with its own settings."""

from reports.metrics import evaluate_examples
from tests.helpers.data_config import data_config
from tests.helpers.demos import trained
from translation import data, loglike, train

import pytest


@pytest.mark.demos
def test_the_demo_translates_numbers_that_it_has_not_seen(tmp_path):
    model = trained(train, tmp_path)
    right = evaluate_examples(model, data.load("test", data_config(limit=200)), [loglike.accuracies], 100)
    assert right["accuracy, english -> french"].mean() > 0.7
