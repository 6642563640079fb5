"""Checks of objectives: KLs in closed form, repeated examples, rows of each call, finite differences."""

import torch
from torch.distributions import Normal, kl_divergence


def kl_to_prior(mean, variance):
    return kl_divergence(Normal(mean, variance.sqrt()), Normal(torch.zeros_like(mean), 1.0)).sum(dim=-1)


def repeated(inputs, n):
    return {name: x.expand(n, *x.shape[1:]) for name, x in inputs.items()}


def hooked(network):
    """The rows of each call to come."""
    rows = []
    network.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    return rows


def gradients_agree(objective, inputs, names=""):
    """gradcheck of the loss, with the same noise each time, by all parameters whose names begin in this way."""
    parameters = {name: p for name, p in objective.model.named_parameters() if name.startswith(names)}

    def loss(*values):
        torch.manual_seed(0)
        names = {f"model.{name}": value for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(objective, names, (inputs, 0.5))

    return torch.autograd.gradcheck(loss, tuple(p.detach().clone().requires_grad_() for p in parameters.values()))
