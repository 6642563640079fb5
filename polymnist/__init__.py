"""PolyMNIST: several images of the same digit, each in its own handwriting on its own background."""

import common  # isort: skip  # noqa: F401 (before torch, whose threads it tells how to wait)
