"""The code and the machine that figures come from."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """The commit, versions, device and threads of this process."""
    return {
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name() if torch.cuda.is_initialized() else processor(),
        "threads": torch.get_num_threads(),
    }


def git_commit() -> str | None:
    """The repository's commit, marked "+" where files differ from it; None outside a clone."""
    root = Path(__file__).parents[1]
    git = ["git", "--no-optional-locks", "-C", str(root)]  # several runs may start at once
    command = [*git, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        ceiling = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.parent)}  # no repository around this one
        return subprocess.run(command, capture_output=True, text=True, check=True, env=ceiling).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The name of the CPU, or of its architecture if the system does not tell it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
