"""Pictures of what a model generates."""

import pytest
import torch

from common.data import Examples
from common.errors import InputError
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from common.reporting import generated
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
