"""How the objectives of mixtures compute. (Values: test_closed_forms.py.)"""

import pytest
import torch

from common.data import Batch
from common.objectives import MmvaeElbo
from tests.helpers.digits import mnist_inputs, model_of
from tests.helpers.fusions import mask_of, subsets_of, with_fusion
from tests.helpers.linear_gaussian import NAMES, draw
from tests.helpers.objectives import hooked


@pytest.mark.parametrize(("name", "n_components"), [("bivcca", 2), ("mopoe", 3)])
def test_a_mixtures_networks_run_once_and_decode_what_is_scored(name, n_components):
    model = model_of(name)
    counts = {(kind, m): hooked(getattr(model, kind)[m]) for kind in ("encoder", "decoder") for m in model.modalities}
    MmvaeElbo(model)(mnist_inputs(5))
    assert all(rows == [5 if kind == "encoder" else 5 * n_components] for (kind, _), rows in counts.items())
    for rows in counts.values():
        rows.clear()
    MmvaeElbo(model)(Batch(mnist_inputs(3), torch.tensor([[True, True], [True, False], [True, False]])))
    assert counts == {
        ("encoder", "image"): [3],
        ("encoder", "text"): [1],
        ("decoder", "image"): [n_components + 2],
        ("decoder", "text"): [n_components],
    }


def test_published_mopoe_multiplies_the_prior_into_the_full_product_alone():
    model, weights, scales = with_fusion("mopoe-published", 3)
    inputs = draw(weights, scales, 2)
    patterns = [("a", "b", "c"), ("a", "c")]
    q = model.fuse(model.experts(model.observe(inputs)), mask_of(patterns))
    order = [("a",), ("b",), ("a", "b"), ("c",), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert set(order) == set(subsets_of(NAMES[:3]))
    for i, pattern in enumerate(patterns):
        share = q.mixture_distribution.probs[i]
        products = [(subset, t) for t, subset in enumerate(order) if set(subset) <= set(pattern)]
        assert share.nonzero().flatten().tolist() == [t for _, t in products]
        for subset, t in products:
            precision = sum(weights[name].T @ weights[name] / scales[name] ** 2 for name in subset)
            precision = precision + (torch.eye(2) if subset == ("a", "b", "c") else 0)
            mean = sum(inputs[name][i] @ weights[name] / scales[name] ** 2 for name in subset)
            part = q.component_distribution
            torch.testing.assert_close(part.variance[i, t], 1 / precision.diag())
            torch.testing.assert_close(part.mean[i, t], mean / precision.diag())
