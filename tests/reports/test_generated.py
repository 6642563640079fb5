"""Pictures of what a model generates."""

from types import SimpleNamespace

import pytest
import torch

from common.data import Examples
from common.errors import InputError
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from reports import generated
from tests.helpers.coherence import C, Decoder, Encoder


def test_values_that_are_no_images_are_named(tmp_path):
    model = MVAE(
        {"a": Encoder()}, {"a": Decoder()}, GroupedLikelihood(a=SphericalGaussianLikelihood(1.0)), latent_dim=C
    )
    message = r"pictures show images \(N, 1 or 3, H, W\), which these are not: {'a"
    with pytest.raises(InputError, match=message):
        generated.samples(tmp_path / "prior.png", model, 4, 2)
    with pytest.raises(InputError, match=message):
        generated.decoded(tmp_path / "from_a.png", model, Examples({"a": torch.eye(C)}), ("a",), 2)


@pytest.mark.parametrize("sizes", [((28, 28), (33, 28)), ((28, 28), (64, 32))])
def test_images_are_padded_to_the_largest_height_and_width(sizes):
    images = {str(i): torch.ones(2, 1, *size) for i, size in enumerate(sizes)}
    padded = generated.framed(images)
    assert {tuple(x.shape) for x in padded.values()} == {(2, 3, *map(max, zip(*sizes, strict=True)))}
    assert [int(x[0, 0].sum()) for x in padded.values()] == [h * w for h, w in sizes], "with zeros"


def test_captions_tell_what_is_no_image(tmp_path, monkeypatch):
    values = {"image": torch.rand(4, 1, 8, 8), "label": torch.arange(4)}
    model = SimpleNamespace(generate=lambda n, latents: values)
    drawn = []
    monkeypatch.setattr(generated.plots, "image_grid", lambda path, *rows: drawn.append(rows[:3]))
    shown = generated.Shown(("image",), lambda values: [str(x) for x in values["label"].tolist()])
    generated.samples(tmp_path / "prior.png", model, 4, 2, shown=shown)
    images, labels, captions = drawn[0]
    assert (images.shape, labels, captions) == ((2, 2, 3, 8, 8), ["image"] * 2, [["0", "1"], ["2", "3"]])
