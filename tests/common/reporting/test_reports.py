import pytest
import torch

from common.reporting import plots
from common.reporting import tables as reports


def test_means_and_standard_errors():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert reports.summarise({"x": x}) == {"x": pytest.approx({"mean": 3.0, "stderr": (14 / 3) ** 0.5 / 2})}


def test_curves_of_validation_have_the_epochs_that_were_evaluated(finely, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    lines = [{"epoch": epoch, "train": {"bound": -1.0 * epoch}} for epoch in (1, 2, 3, 4)]
    for line in lines[1::2]:
        line["valid"] = {"bound": -2.0 * line["epoch"]}
    plots.loss_curves("loss.png", lines)
    curves = [(line.get_linestyle(), line.get_xydata().tolist()) for line in drawn[0].axes[0].lines]
    assert curves == [("-", [[1, -1], [2, -2], [3, -3], [4, -4]]), ("--", [[2, -4], [4, -8]])]
