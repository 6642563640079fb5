import common  # noqa: F401 (before torch, see pyproject.toml: of all packages only this one is sorted above it)
