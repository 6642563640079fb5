"""The same numbers as the package multivae where it computes the same, with its own default networks in both models."""

import inspect
from copy import deepcopy

import common.data.torchvision_import  # noqa: F401 (before the package, whose import of torchvision fails otherwise)
from common.models import MMVAE, MMVAEConfig
from multivae_api import IncompleteDataset, ModelOutput, MultimodalBaseDataset
from tests.helpers.experts import draw_one_by_one
from tests.multivae_api import test_documentation
from tests.multivae_api.test_mmvae import DIMS, pair

import pytest
import torch
from torch.distributions import Laplace, Normal

models = pytest.importorskip("multivae.models")
datasets = pytest.importorskip("multivae.data.datasets.base")
networks = pytest.importorskip("pythae.models.nn.base_architectures")

FAMILIES = {"laplace_with_softmax": Laplace, "normal": Normal}


def both(**options):
    """Their model and ours, with the same networks and parameters."""
    options = {"n_modalities": 2, "latent_dim": 3, "input_dims": DIMS, "K": 5} | options
    torch.manual_seed(0)
    theirs = models.MMVAE(models.MMVAEConfig(**deepcopy(options)))
    ours = MMVAE(MMVAEConfig(**options), dict(theirs.encoders), dict(theirs.decoders))
    with torch.no_grad():
        theirs.prior_log_var.normal_()
        ours.prior.scale.copy_(theirs.prior_log_var[0])
    return theirs, ours


def same(ours, theirs):
    """Equal values under the same names, which are attributes and items in both."""
    assert type(ours) is ModelOutput and list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cond_mod", ["all", "a", ["b"], ["a", "b"]])
def test_encodings_predictions_and_what_is_decoded(family, cond_mod):
    theirs, ours = both(prior_and_posterior_dist=family)
    x = {"return_mean": True, "cond_mod": cond_mod}
    theirs_in, ours_in = datasets.MultimodalBaseDataset(pair()), MultimodalBaseDataset(pair())
    for n in (1, 3):
        flat = ours.encode(ours_in, N=n, flatten=True, **x)
        same(flat, theirs.encode(theirs_in, N=n, flatten=True, **x))
        same(ours.decode(flat), theirs.decode(flat))
        same(ours.decode(flat, "b"), theirs.decode(flat, "b"))
        for flatten in (False, True):
            for gen_mod in ("all", "a", ["b"]):
                args = {"gen_mod": gen_mod, "N": n, "flatten": flatten} | x
                same(ours.predict(ours_in, **args), theirs.predict(theirs_in, **args))
                args["return_mean"] = False
                shapes = [
                    {name: y.shape for name, y in model.predict(inputs, **args).items()}
                    for model, inputs in ((ours, ours_in), (theirs, theirs_in))
                ]
                assert shapes[0] == shapes[1]
    same(ours.encode(ours_in, **x), theirs.encode(theirs_in, **x))
    same(ours.decode(ours.encode(ours_in, **x)), theirs.decode(theirs.encode(theirs_in, **x)))
    assert ours.encode(ours_in, N=3, **x).z.shape == (4, 3, 3), "in the order of its documentation, not of its code:"
    torch.testing.assert_close(ours.encode(ours_in, N=3, **x).z.transpose(0, 1), theirs.encode(theirs_in, N=3, **x).z)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("masks", [None, {"a": [True, True, False, True], "b": [True, False, True, True]}])
def test_losses_and_gradients(family, masks, monkeypatch):
    """With the same samples. The package sums `loss` over the batch, where ours is the mean."""
    draw_one_by_one(monkeypatch, *[FAMILIES[family]] * 2)
    theirs, ours = both(
        prior_and_posterior_dist=family,
        loss="iwae_looser",
        uses_likelihood_rescaling=True,
        decoders_dist={"a": "laplace", "b": "normal"},
        decoder_dist_params={"a": {"scale": 0.75}},
    )
    inputs = pair()
    if masks is None:
        theirs_in, ours_in = datasets.MultimodalBaseDataset(inputs), inputs
    else:
        masks = {name: torch.tensor(x) for name, x in masks.items()}
        theirs_in = datasets.IncompleteDataset(inputs, masks)
        ours_in = IncompleteDataset(inputs, masks)
    outputs, gradients = [], []
    for model, x in ((theirs, theirs_in), (ours, ours_in)):
        torch.manual_seed(0)
        model.zero_grad()
        outputs.append(model(x, K=4, detailed_output=True))
        outputs[-1].loss_sum.backward()
        gradients.append([p.grad.clone() for p in theirs.encoders.parameters()])
        gradients[-1] += [p.grad.clone() for p in theirs.decoders.parameters()]
    expected, output = outputs
    torch.testing.assert_close(output.loss_sum, expected.loss_sum)
    torch.testing.assert_close(output.loss, expected.loss / 4)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.prior.scale.grad, theirs.prior_log_var.grad[0], rtol=1e-4, atol=1e-5)
    present = torch.ones(4, dtype=torch.bool) if masks is None else masks["a"]
    for key in ("zss", "recon", "qz_xs", "qz_xs_detach"):
        assert set(output[key]) == set(expected[key]) == {"a", "b"}
    torch.testing.assert_close(output.zss["a"][:, present], expected.zss["a"][:, present])
    torch.testing.assert_close(output.recon["a"]["b"][:, present], expected.recon["a"]["b"][:, present])
    torch.testing.assert_close(output.qz_xs["a"].mean[present], expected.qz_xs["a"].mean[present])


def test_the_examples_of_the_documentation_are_literal():
    modules = (
        models.base.base_ae_model,
        models.base.base_config,
        datasets,
        networks,
    )
    sources = "\n".join(map(inspect.getsource, modules))
    for example in test_documentation.EXAMPLES:
        for line in map(str.strip, example.splitlines()):
            assert line in sources or line.startswith("from multivae_api import"), line
