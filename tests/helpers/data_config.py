"""What `load(split, config)` of every dataset reads."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

DEFAULTS = {"demo": False, "download": False, "limit": None, "valid": None, "images_dir": None, "cache_dir": None}


def data_config(data_dir="", *options, **given):
    """A config with these options, and the fields and checks of dataclasses of options."""
    config = SimpleNamespace(data_dir=Path(data_dir), **DEFAULTS | given)
    for of in options:
        for field in dataclasses.fields(of):
            setattr(config, field.name, getattr(of, field.name))
        if hasattr(of, "check_options"):
            config.check_options = of.check_options
    return config
