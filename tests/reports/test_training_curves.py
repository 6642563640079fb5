"""What loss.png shows: matplotlib's artists, before they become pixels."""

from reports import plots, training_curves

import pytest


@pytest.fixture
def drawn(finely, monkeypatch):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def curves(figure, metrics):
    training_curves.loss_curves("loss.png", metrics)
    return figure[-1]


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


TERMS = {"bound": -3.0, "image/kl": 1.0, "text/kl": 2.0, "joint/kl": 2.5, "image/image": -5.0, "joint/image": -4.0}
TERMS |= {"text/text": -1.0, "joint/text": -0.5}


def test_panels_and_posteriors_have_plain_names_and_one_legend(drawn):
    figure = curves(drawn, [{"epoch": epoch, "train": TERMS, "valid": TERMS} for epoch in (1, 2)])
    assert [axis.get_title() for axis in figure.axes] == [
        "bound",
        "KL from the prior",
        "log p(image|z)",
        "log p(text|z)",
    ]
    assert legend(figure) == ["training", "validation", "q(z|image)", "q(z|text)", "q(z|image,text)"]
    assert not [axis for axis in figure.axes if axis.get_legend()]
    kl, image = figure.axes[1:3]
    assert [line.get_color() for line in kl.lines] == ["C0", "C0", "C1", "C1", "C2", "C2"]
    assert [line.get_color() for line in image.lines] == ["C0", "C0", "C2", "C2"], "a posterior keeps its colour"
    assert figure.get_supxlabel() == "epoch" and figure.get_supylabel() == "nats per example"


def test_a_panel_of_one_posterior_names_it(drawn):
    terms = {"bound": 0.0, "joint/kl": 1.0, "a/kl from joint": 2.0, "joint/a": 3.0, "joint/b": 3.0}
    figure = curves(drawn, [{"epoch": 1, "train": terms}])
    titles = ["bound", "KL of q(z|a,b)", "KL of q(z|a,b) from each", "log p(a|z)", "log p(b|z)"]
    assert [axis.get_title() for axis in figure.axes] == titles
    assert legend(figure) == ["q(z|a,b)", "q(z|a)"], "without validation the styles need no key"


def test_the_panel_of_mmvms_kls_between_experts_says_so(drawn):
    figure = curves(drawn, [{"epoch": 1, "train": {"bound": 0.0, "mixture/kl": 1.0, "mixture/kl between": 2.0}}])
    assert [axis.get_title() for axis in figure.axes][2] == "KLs between the experts"


def test_curves_of_validation_have_the_epochs_that_were_evaluated(drawn):
    lines = [{"epoch": epoch, "train": {"bound": -1.0 * epoch}} for epoch in (1, 2, 3, 4)]
    for line in lines[1::2]:
        line["valid"] = {"bound": -2.0 * line["epoch"]}
    axis = curves(drawn, lines).axes[0]
    shown = [(line.get_linestyle(), line.get_xydata().tolist()) for line in axis.lines]
    assert shown == [("-", [[1, -1], [2, -2], [3, -3], [4, -4]]), ("--", [[2, -4], [4, -8]])]


def test_the_first_epochs_do_not_flatten_the_others(drawn):
    values = [-1000.0, -500.0] + [-100.0 + i / 10 for i in range(18)]
    lines = [{"epoch": e + 1, "train": {"bound": x}, "valid": {"bound": x - 1}} for e, x in enumerate(values)]
    axis = curves(drawn, lines).axes[0]
    low, high = axis.get_ylim()
    assert -102 < low < -100.5 and -98.5 < high < -97.5, "the range of the last 18 epochs"
    assert [text.get_text() for text in axis.texts] == ["lowest: -1,001 in epoch 1"]
    whole = curves(drawn, lines[2:]).axes[0]
    assert not whole.texts and whole.get_ylim()[0] < min(values[2:])


def test_a_value_that_is_not_finite_leaves_a_gap(drawn):
    values = [-3.0, -2.0, float("nan"), -1.0]
    axis = curves(drawn, [{"epoch": e + 1, "train": {"bound": x}} for e, x in enumerate(values)]).axes[0]
    assert axis.get_ylim() == pytest.approx((-2.0, -1.0), abs=0.2)
