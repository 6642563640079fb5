"""Files of UCI Multiple Features' format, with random numbers."""

from mfeat.data import TABLES

import numpy as np

CLASSES = np.repeat(np.arange(10), 10)


def tables():
    """{name: (100, columns) float64}, of as many decimals as the files have."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(5, 3, (len(CLASSES), columns)).round(3) for name, columns in TABLES.items()}


def csv(values, classes=CLASSES):
    """A file: numbers of the columns, then values and the class."""
    lines = [",".join(map(str, [*range(values.shape[1]), 0]))]
    lines += [",".join([*(f"{x:.5g}" for x in row), str(c)]) for row, c in zip(values, classes, strict=True)]
    return "".join(f"{line}\r\n" for line in lines)


def write_mfeat(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in tables().items():
        (folder / f"mfeat-{name}.csv").write_text(csv(values), newline="")
    return folder
