"""The checks of data before a training: rows that are paired, and sets of like elements."""

import math
from types import SimpleNamespace

from common.data import Examples, mapped_rows
from common.data.batches import columns_of
from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from common.likelihoods import (
    BernoulliLikelihood,
    FunctionLikelihood,
    GroupedLikelihood,
    LaplaceLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    SphericalGaussianLikelihood,
)
from common.model_data import check_present, modelled
from common.models import MVAE
from mnist.model import build
from multivae_api.config import OneHotLikelihood
from reports import metrics

import numpy as np
import pytest
import torch
from torch import nn

MODEL = SimpleNamespace(
    modalities=("a", "s"),
    modelled=(),
    columns=columns_of({"a": None, "s": 2}),
    likelihood={},
    decoded_once=lambda name: None,
    parameters=lambda: iter([torch.zeros(1)]),
)


def data(mask=None, rows=None):
    """Row 1 of a, and the element 0 of row 2 of the set s, are infinite."""
    a, s = torch.zeros(4, 3), torch.zeros(4, 2, 3)
    a[1, 2] = s[2, 0, 1] = torch.inf
    return Examples({"a": a, "s": s}, rows, mask)


def test_elements_that_a_mask_leaves_out_may_hold_anything():
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1, 0] = mask[2, 1] = False  # a of example 1, the first element of example 2
    assert modelled(None, data(mask), MODEL).mask is mask
    mask[2] = torch.tensor([True, True, False])  # the other element in its place
    with pytest.raises(InputError, match="s has infinity in 1 of 4 examples"):
        modelled(None, data(mask), MODEL)


def test_only_the_rows_that_examples_take_count():
    whole = torch.tensor([0, 3, 3])
    assert len(modelled(None, data(rows={"a": whole, "s": whole}), MODEL)) == 3
    with pytest.raises(InputError, match="a has infinity in 2 of 3 examples"):
        modelled(None, data(rows={"a": torch.tensor([1, 0, 1]), "s": whole}), MODEL)


def test_data_in_files_fit_a_model(tmp_path):
    np.save(tmp_path / "image.npy", np.ones((5, 1, 28, 28), dtype=np.float32))
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian"))
    data = Examples({"image": mapped_rows(tmp_path / "image.npy"), "text": torch.arange(5)})
    assert len(modelled(None, data, model)) == 5


def test_shapes_and_types_that_do_not_fit_are_named():
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian"))
    for changed, message in (
        ({"text": torch.arange(5)[:, None]}, r"an example of text has the shape \(1,\), its decoder gives \(\)"),
        ({"image": torch.ones(5, 1, 28, 28).long()}, "image is torch.int64, and its likelihood takes floats or uint8"),
    ):
        data = Examples({"image": torch.rand(5, 1, 28, 28), "text": torch.arange(5)} | changed)
        for check in (lambda: modelled(None, data, model), lambda: metrics.evaluate_examples(model, data, [], 5)):  # noqa: B023
            with pytest.raises(InputError, match=message):
                check()


@pytest.mark.parametrize(
    ("likelihood", "are_pixels"),
    [
        (BernoulliLikelihood(2), True),
        (BernoulliLikelihood(), False),
        (LaplaceLikelihood(event_dims=3), True),
        (NormalLikelihood(3), True),
        (LaplaceLikelihood(), False),
        (SphericalGaussianLikelihood(), False),
        (NormalLikelihood(), False),
        (NegativeBinomialLikelihood(), False),
        (FunctionLikelihood(lambda output, x: x * output - output.exp() - (x + 1).lgamma()), False),
        (OneHotLikelihood(), False),
    ],
)
def test_bytes_are_pixels_only_for_likelihoods_of_pixels(likelihood, are_pixels):
    shape = (2, 3, 4)[-likelihood.event_dims :]
    encoder = nn.Sequential(nn.Flatten(), SplitLinearLayer(math.prod(shape), (2, 2)))
    n_outputs = 2 if isinstance(likelihood, NormalLikelihood | NegativeBinomialLikelihood) else 1
    decoder = nn.Sequential(
        nn.Linear(2, n_outputs * math.prod(shape)), nn.Unflatten(1, (n_outputs * shape[0], *shape[1:]))
    )
    model = MVAE({"x": encoder}, {"x": decoder}, GroupedLikelihood(x=likelihood), 2)
    data = Examples({"x": torch.ones(5, *shape, dtype=torch.uint8)})
    if are_pixels:
        assert modelled(None, data, model)[:].modalities["x"].unique().tolist() == pytest.approx([1 / 255])
    else:
        with pytest.raises(InputError, match=r"x is torch.uint8, .*: convert it with .to\(torch.float32\)"):
            modelled(None, data, model)
        assert modelled(None, Examples({"x": data.modalities["x"].float()}), model)[:].modalities["x"].max() == 1


def test_a_mask_of_another_shape_or_without_a_modality_is_refused():
    with pytest.raises(InputError, match=r"a mask needs 3 columns, \(4, 3\), for a, s; its shape is \(4,\)"):
        modelled(None, data(torch.ones(4, dtype=torch.bool)), MODEL)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[:, 0] = False
    with pytest.raises(InputError, match="no example has a: NaN, -1, and False in a mask, are for what is missing"):
        check_present(data(mask), MODEL)
