"""Tables in units of their columns' deviations."""

from common.data import Examples
from common.data.scales import in_units, scales_of, standardised
from common.errors import InputError

import pytest
import torch


def test_columns_are_standardised_by_the_cells_that_are_there_and_back():
    x = torch.tensor([[1.0, 7.0, 2.0], [3.0, 7.0, torch.nan], [5.0, 7.0, 6.0]])
    examples = Examples({"kar": x, "digit": torch.arange(3)})
    scales = scales_of(examples, ("kar",), "")
    means, deviations = zip(*scales["kar"], strict=True)
    assert means == (3.0, 7.0, 4.0)
    assert deviations == pytest.approx([(8 / 3) ** 0.5, 1.0, 2.0]), "a constant column's deviation counts as 1"
    made = standardised(examples, scales).modalities
    torch.testing.assert_close(made["kar"][:, 2], torch.tensor([-1.0, torch.nan, 1.0]), equal_nan=True)
    assert made["kar"][:, 1].eq(0).all() and made["kar"][:, 0].square().mean().item() == pytest.approx(1)
    back = in_units(made, scales)
    for name, values in examples.modalities.items():
        torch.testing.assert_close(back[name], values, equal_nan=True, check_dtype=False)
    with pytest.raises(InputError, match="'kar': 2}, and the model {'kar': 3}: give the data that it was trained on, "):
        standardised(Examples({"kar": x[:, :2]}), scales)
    with pytest.raises(InputError, match="a column of kar has no value: raise --limit"):
        scales_of(Examples({"kar": torch.full((3, 1), torch.nan)}), ("kar",), "raise --limit")
