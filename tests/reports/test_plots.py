"""What the figures show: matplotlib's artists, before they become pixels."""

from reports import plots

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def drawn(finely, monkeypatch):
    """The figures that would be saved."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_a_grid_has_each_image_in_its_cell_beside_its_label(drawn):
    images = torch.rand(2, 3, 1, 14, 14)
    images[1, 2] = torch.nan
    plots.image_grid("grid.png", images, row_labels=["first", "second"], title="digits")
    axis = drawn[0].axes[0]
    canvas = torch.as_tensor(axis.images[0].get_array())
    assert canvas.shape == (34, 51, 3) and words(drawn[0]) == ["digits"] and not axis.axison
    for r in range(2):
        for c in range(3):
            expected = images[r, c, 0].nan_to_num(1.0)
            cell = canvas[r * 17 : r * 17 + 16, c * 17 : c * 17 + 16]
            assert (cell[1:-1, 1:-1] == expected.unsqueeze(-1)).all()
            assert (cell[0] == cell[-1]).all() and (cell[0] == (1.0 if (r, c) == (1, 2) else plots.FRAME)).all()
    assert (canvas[16] == 1).all() and (canvas[:, 50] == 1).all()
    assert [(t.get_text(), t.get_position()) for t in axis.texts] == [("first", (-4, 8)), ("second", (-4, 25))]


def test_grids_fit_a_screen(finely, tmp_path):
    captions, labels = [["image"] * 6] * 28, [*["a face"], *["given obscured"] * 6] * 4
    plots.image_grid(tmp_path / "grid.png", torch.rand(28, 6, 3, 64, 64), labels, captions, "a title")
    with Image.open(tmp_path / "grid.png") as picture:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())
    assert picture.width <= 1900 and picture.height <= 1100
    assert (pixels[:12] == 255).all() and (pixels[:, -12:] == 255).all() and pixels.float().std() > 30


def test_the_last_row_is_filled_with_blanks():
    images, captions = plots.in_rows(torch.ones(4, 1, 2, 2), list("abcd"), 3)
    assert images.shape == (2, 3, 1, 2, 2) and images[1, 1:].isnan().all() and (images[1, 0] == 1).all()
    assert captions == [["a", "b", "c"], ["d", "", ""]]
    whole, captions = plots.in_rows(torch.ones(3, 1, 2, 2), list("abc"), 3)
    assert whole.shape == (1, 3, 1, 2, 2) and captions == [["a", "b", "c"]]


def test_sets_of_images_take_turns_row_by_row():
    a, b = torch.arange(3.0).view(3, 1, 1, 1), torch.arange(10.0, 13).view(3, 1, 1, 1)
    images, labels, captions = plots.alternating({"a": (a, list("xyz")), "b": (b, list("uvw"))}, 2)
    assert images.nan_to_num(-1).flatten(1).tolist() == [[0, 1], [10, 11], [2, -1], [12, -1]]
    assert labels == ["a", "b"] * 2 and captions == [["x", "y"], ["u", "v"], ["z", ""], ["w", ""]]


def test_error_bars_have_the_height_of_the_deviation(drawn):
    plots.error_bars("curve.png", [1, 10], {"mvae": [(2.0, 0.5), (3.0, 1.0)]}, ("pairs", "accuracy"), "learning")
    axis = drawn[0].axes[0]
    points, _, bars = axis.containers[0].lines
    assert points.get_xydata().tolist() == [[1, 2], [10, 3]]
    assert [segment.tolist() for segment in bars[0].get_segments()] == [[[1, 1.5], [1, 2.5]], [[10, 2], [10, 4]]]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("pairs", "accuracy", "learning")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["mvae"]
    plots.error_bars("curve.png", [1], {"mvae": [(2.0, 0.5)]}, ("", ""), log=True)
    assert (drawn[1].axes[0].get_xscale(), drawn[1].axes[0].get_yscale()) == ("linear", "log")


def ticks(axis, which):
    low, high = getattr(axis, f"get_{which}lim")()
    ruler = getattr(axis, f"{which}axis")
    return [text for x, text in zip(ruler.get_majorticklocs(), ruler.get_ticklabels(), strict=True) if low <= x <= high]


def test_logarithmic_ticks_are_written_in_full(drawn):
    points = [(0.02, 0.0), (0.3, 0.0), (0.4, 0.0)]
    plots.error_bars("curve.png", [300, 3000, 50_000], {"mvae": points}, ("pairs", "variance"), log=True)
    drawn[0].draw_without_rendering()
    axis = drawn[0].axes[0]
    assert [x.get_text() for x in ticks(axis, "x")][:4] == ["500", "1,000", "2,000", "5,000"]
    assert [x.get_text() for x in ticks(axis, "y")] == ["0.02", "0.05", "0.1", "0.2"]
    plots.error_bars("curve.png", [300, 400], {"mvae": points[:2]}, ("pairs", "variance"))
    drawn[1].draw_without_rendering()
    assert len(ticks(drawn[1].axes[0], "x")) > 2, "also where 1, 2, 5, ... do not fall"


def test_boxes_reach_from_the_5th_to_the_95th_percentile(drawn):
    x = torch.stack([torch.arange(101.0), torch.arange(101.0) + 100], dim=1)
    plots.boxes("kl.png", {"mnist": x, "svhn": x}, ("latent", "nats"), ["z1", "z2"])
    axis = drawn[0].axes[0]
    ends = [line.get_ydata().tolist() for line in axis.lines]
    assert [25, 5] in ends and [75, 95] in ends and [50, 50] in ends and [150, 150] in ends
    assert not [line for line in axis.lines if line.get_marker() not in ("", "None", None)]
    assert [axis.get_title() for axis in drawn[0].axes] == ["mnist", "svhn"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["z1", "z2"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("latent", "nats")


def test_given_images_are_apart_from_the_samples():
    images, texts = torch.ones(2, 4, 1, 3, 3), [["a"] * 4, ["b"] * 4]
    found, captions = plots.beside(torch.zeros(1, 1, 3, 3), images, texts)
    assert found.shape == (2, 6, 1, 3, 3) and found[:, 1].isnan().all() and found[1, 0].isnan().all()
    assert found[0, 0].eq(0).all() and found[:, 2:].equal(images)
    assert captions == [["given", "", *texts[0]], ["", "", *texts[1]]]
    found, captions = plots.beside(torch.zeros(3, 1, 3, 3), images, texts)
    assert found[:, 0].eq(0).all() and found[2, 1:].isnan().all() and captions[2] == [""] * 6, "a row is added"


def test_scattered_points_have_the_colour_of_their_group(drawn):
    groups = {"image": torch.rand(4, 2), "text": torch.rand(3, 2)}
    plots.scatter("umap.png", {"latents": groups})
    (axis,) = drawn[0].axes
    for points, x in zip(axis.collections, groups.values(), strict=True):
        assert torch.as_tensor(points.get_offsets()).float().equal(x)
    first, second = (points.get_facecolor().tolist() for points in axis.collections)
    assert first != second and [x.get_text() for x in axis.get_legend().get_texts()] == ["image", "text"]


def test_sentences_are_wrapped_below_their_images(drawn):
    images, texts = torch.rand(2, 2, 3, 4, 4), [["a bird " * 8, "b"], ["c", "d"]]
    plots.captioned("birds.png", images, ["given", "decoded"], texts, "birds")
    for axis, image, text in zip(drawn[0].axes, images.flatten(0, 1), ["", "b", "c", "d"], strict=True):
        assert torch.as_tensor(axis.images[0].get_array()).equal(image.permute(1, 2, 0))
        assert not text or words(axis)[0] == text
    assert [len(line) for line in words(drawn[0].axes[0])[0].split("\n")] == [36, 18]
