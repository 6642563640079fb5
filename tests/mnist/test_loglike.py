from types import SimpleNamespace

from common.data import Batch
from common.likelihoods import GroupedLikelihood
from common.models import MVAE
from mnist.loglike import image_and_label
from mnist.model import build
from tests.helpers.linear_gaussian import D, draw, exact_log_p, linear_gaussian

import torch
from torch import nn


def test_an_image_and_its_label():
    """Rows whose proposal is the exact posterior are exact with one sample; one with a wider proposal is not."""
    model, weights, scales = linear_gaussian(2)
    names = dict(zip("ab", ("image", "text"), strict=True))
    renamed = [{new: network[old] for old, new in names.items()} for network in (model.encoder, model.decoder)]
    likelihood = GroupedLikelihood(**{new: model.likelihood[old] for old, new in names.items()})
    model = MVAE(*renamed, likelihood, latent_dim=D).double()
    weights, scales = ({new: x[old] for old, new in names.items()} for x in (weights, scales))
    inputs = draw(weights, scales, 6)
    rows = image_and_label(model, Batch(inputs), ("text",), "text", ("text",), n_samples=1)
    image, text, joint = (exact_log_p(weights, scales, inputs, x) for x in (("image",), ("text",), tuple(inputs)))
    of_both = ", z from q(z|image,text)"
    exact = {
        "log p(image)": image,
        "log p(text)": text,
        f"log p(image,text){of_both}": joint,
        f"log p(image|text){of_both}": joint - text,
    }
    torch.testing.assert_close({name: rows[name] for name in exact}, exact)
    for row, value in (("log p(image,text)", joint), (f"log p(image){of_both}", image)):
        assert (rows[row] - value).abs().min() > 1e-3, "the proposal is the posterior of something else"
    for suffix in ("", of_both):
        shared = rows[f"log p(image,text){suffix}"]
        torch.testing.assert_close(rows[f"log p(image|text){suffix}"], shared - text)
        torch.testing.assert_close(rows[f"log p(text|image){suffix}"], shared - rows[f"log p(image){suffix}"])


def test_the_prior_is_the_proposal_of_a_label_by_default():
    """A decoder that ignores z: exact for any draw of the prior, and for no draw of q(z|text)."""
    torch.manual_seed(0)
    vae = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")).double()
    nn.init.zeros_(vae.decoder["text"][1].weight)
    exact = vae.decoder["text"][1].bias.log_softmax(dim=0).detach()
    batch = Batch({"image": torch.rand(10, 1, 28, 28).double(), "text": torch.arange(10)})
    rows = image_and_label(vae, batch, ("text",), "text", n_samples=1)
    torch.testing.assert_close(rows["log p(text)"], exact)
