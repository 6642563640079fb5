"""Where the chain of the AR-ELBO starts. (Values: test_closed_forms.py.)"""

from common.models import VAE
from common.objectives import ArElbo
from tests.helpers.linear_gaussian import D, draw, linear_gaussian

import torch
from torch import nn
from torch.distributions import kl_divergence


def test_the_chain_starts_from_a_learned_prior_at_the_first_modality_that_an_example_has():
    model, weights, scales = linear_gaussian(2)
    encoder, decoder = dict(model.encoder), dict(model.decoder)
    model = VAE("product", encoder, decoder, model.likelihood, latent_dim=D, learn_prior=True).double()
    nn.init.constant_(model.prior.scale, 1.5)
    a, b = draw(weights, scales, 3).values()
    a[1:], b[2] = torch.nan, torch.nan  # both, b alone, nothing
    inputs = {name: x.repeat(100, 1) for name, x in (("a", a), ("b", b))}
    value, terms = ArElbo(model).bound(inputs)
    q = {
        given: model.posterior({name: x[:1] for name, x in inputs.items()}, tuple(given)) for given in ("a", "b", "ab")
    }
    orders = [kl_divergence(q[x], model.prior()) + kl_divergence(q["ab"], q[x]) for x in "ab"]
    both, alone, nothing = terms["ar/kl"].view(100, 3).T
    torch.testing.assert_close(both.unique(), torch.cat(orders).sort().values)
    of_b = kl_divergence(model.posterior({"b": b[1:2]}), model.prior())
    torch.testing.assert_close(alone, of_b.expand(100))
    assert (nothing == 0).all() and (value.view(100, 3)[:, 2] == 0).all()
