"""Pictures of what a model generates, and the names of their files."""

from types import SimpleNamespace

from reports import sampling

import pytest
import torch


def test_images_are_padded_to_the_largest_height_and_width():
    sizes = (28, 28), (64, 32)
    images = {str(i): torch.ones(2, 1, *size) for i, size in enumerate(sizes)}
    padded = sampling.framed(images)
    assert {tuple(x.shape) for x in padded.values()} == {(2, 3, *map(max, zip(*sizes, strict=True)))}
    assert [int(x[0, 0].sum()) for x in padded.values()] == [h * w for h, w in sizes], "with zeros"


def test_captions_tell_what_is_no_image(tmp_path, monkeypatch):
    values = {"image": torch.rand(4, 1, 8, 8), "label": torch.arange(4)}
    model = SimpleNamespace(
        draw_latents=lambda n, latents: torch.zeros(n, 1),
        decode=lambda z, given: values,
        likelihood=SimpleNamespace(point=lambda p: p),
    )
    drawn = []
    monkeypatch.setattr(sampling.plots, "image_grid", lambda path, *rows: drawn.append(rows[:3]))
    shown = sampling.Shown(("image",), lambda values: [str(x) for x in values["label"].tolist()])
    sampling.samples(tmp_path / "prior.png", model, 4, shown, 2)
    images, labels, captions = drawn[0]
    assert (images.shape, labels, captions) == ((2, 2, 3, 8, 8), None, [["0", "1"], ["2", "3"]])


def test_files_are_named_by_what_was_given():
    assert sampling.name_of({"image": "mine.jpg", "text": "ankle boot"}) == "given_image_mine_jpg_text_ankle_boot"
    assert sampling.name_of({"text": ""}) == "given_text_none" and sampling.name_of({"a": "zéro"}) == "given_a_zéro"


@pytest.mark.parametrize("text", ["../../etc/passwd", "a\\b:c*?", "é" * 300, "\n\0"])
def test_any_text_makes_a_name_that_files_may_have(text, tmp_path):
    name = f"{sampling.name_of({'text': text, 'image': text})}.png"
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name], "in this folder and not another"


def test_different_texts_make_different_names():
    texts = ["a/b", "a\\b", "a_b", "x" * 100, "x" * 101]
    assert len({sampling.readable(text) for text in texts}) == len(texts)
