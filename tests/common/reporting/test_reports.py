import pytest
import torch

from common.reporting import tables as reports


def test_means_and_standard_errors():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert reports.summarise({"x": x}) == {"x": pytest.approx({"mean": 3.0, "stderr": (14 / 3) ** 0.5 / 2})}
