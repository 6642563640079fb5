"""What explore.py, reproduce.py and the measurements of speed are made of."""

import common  # isort: skip  # noqa: F401 (before torch, whose threads it tells how to wait)
