"""Golden runs: what must not change while the inside does, as JSON beside these tests.

`python -m tests.golden` writes the files anew, and `git diff tests/golden` is then read by eye.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WRITES = os.environ.get("GOLDEN") == "write"
DIGITS = 13  # of the numbers in the files


def check(name: str, found: dict[str, Any], tolerance: Callable[[str], float] = lambda place: 1e-10) -> None:
    """Compare values with those of a golden file, or write the file.

    Args:
        tolerance: by how much a number may differ, given its place in the file.
    """
    path = FOLDER / f"{name}.json"
    found = json.loads(json.dumps(found))
    if WRITES:
        path.parent.mkdir(exist_ok=True)
        lines = [f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in found.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    changed = list(differences(json.loads(path.read_text()), found, tolerance, name))
    assert not changed, "\n".join(changed[:20])


def rounded(value: Any) -> Any:
    """A value with fewer digits in its numbers."""
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    if isinstance(value, list):
        return [rounded(x) for x in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def differences(before: Any, now: Any, tolerance: Callable[[str], float], where: str) -> Iterator[str]:
    """The places where two values of JSON differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if key in before and key in now:
                yield from differences(before[key], now[key], tolerance, f"{where}, {key}")
            else:
                yield f"{where}: {'lacks' if key in before else 'has the new'} {key}"
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, tolerance, f"{where}[{i}]")
    elif {type(before), type(now)} <= {int, float}:
        if not math.isclose(before, now, rel_tol=tolerance(where), abs_tol=tolerance(where)):
            yield f"{where}: {before} is now {now}"
    elif before != now:
        yield f"{where}: {before!r} is now {now!r}"
