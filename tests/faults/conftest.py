from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
    # the longest attack first: the others then run beside it
    items.sort(key=lambda item: item.path.name != "test_long_runs.py")
