"""Tables in units of their columns' standard deviations."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from common.data.batches import Examples
from common.errors import require

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

Scales = dict[str, list[tuple[float, float]]]  # the mean and the deviation of each column, by table


def scales_of(examples: Examples, names: Iterable[str], remedy: str) -> Scales:
    """The mean and the standard deviation of each column of the tables named, of the cells that are there.

    A constant column's deviation counts as 1.

    Raises:
        InputError: no example has a value of a column; `remedy` says what to do.
    """
    scales = {}
    for name in names:
        x = examples.modalities[name].double().numpy()
        require(not np.isnan(x).all(axis=0).any(), f"a column of {name} has no value: {remedy}")
        fitted = StandardScaler().fit(x)
        scales[name] = list(zip(fitted.mean_.tolist(), fitted.scale_.tolist(), strict=True))
    return scales


def standardised(examples: Examples, scales: Scales) -> Examples:
    """(x - mean) / deviation in the examples' tables; InputError if they have other columns than the scales."""
    columns = {name: examples.modalities[name].shape[1] for name in scales if name in examples.modalities}
    known = {name: len(scales[name]) for name in columns}
    other = f"the tables have the columns {columns}, and the model {known}: give the data that it was trained on"
    require(columns == known, f"{other}, with --demo or without")
    tables = dict(examples.modalities)
    for name in columns:
        mean, deviation = torch.tensor(scales[name], dtype=torch.float64).T
        tables[name] = ((tables[name] - mean) / deviation).float()  # a large mean would take float32's digits
    return replace(examples, modalities=tables)


def in_units(values: Mapping[str, Tensor], scales: Scales) -> dict[str, Tensor]:
    """What `standardised` made, {name: (..., columns)}, in the units of the data, float64 on the CPU."""
    values = {name: x.cpu() for name, x in values.items()}
    for name in (name for name in scales if name in values):
        mean, deviation = torch.tensor(scales[name], dtype=torch.float64).T
        values[name] = values[name] * deviation + mean
    return values
