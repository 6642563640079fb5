import common  # isort: skip  # noqa: F401 (before torch, whose threads it tells how to wait)
