"""Write the golden files anew: all, or those of the tests that pytest's further arguments choose."""

import os
import sys

os.environ["GOLDEN"] = "write"

import pytest

sys.exit(pytest.main(["-q", "tests/golden", *sys.argv[1:]]))
