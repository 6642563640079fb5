"""Homoencoders whose likelihoods are known exactly."""

from vhe import VHE
from vhe.data import Characters

import numpy as np
import torch
from torch import nn
from torch.distributions import MultivariateNormal

I2, I3 = torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
A = torch.tensor([[1.0, -0.5], [0.4, 0.8], [-0.3, 0.6]], dtype=torch.float64)  # x = A c + B z + noise
B = torch.tensor([[0.5, 0.1], [-0.2, 0.7], [0.3, 0.3]], dtype=torch.float64)
M = torch.tensor([[0.8, 0.3], [-0.4, 0.9]], dtype=torch.float64)  # c = M a + noise, in a hierarchical model
NOISE, SPREAD = 0.3 * I3, 0.5 * I2  # covariances
OF_X = B @ B.T + NOISE  # given c


class Normal(nn.Module):
    """Draws or scores N(mean, covariance); its noise comes in the same order whatever the batches."""

    narrow = 1.0

    def __init__(self, wrong=False, seed=0):
        super().__init__()
        self.wrong, self.noise = wrong, np.random.default_rng(seed)

    def result(self, mean, covariance, value):
        if self.wrong:
            mean, covariance = 0.8 * mean + 0.1, 1.5 * covariance
        covariance = self.narrow * covariance
        if value is None:
            noise = torch.from_numpy(self.noise.standard_normal(tuple(mean.shape)))
            value = mean + noise @ torch.linalg.cholesky(covariance).T
        return value, MultivariateNormal(mean, covariance).log_prob(value)


class Qa(Normal):
    def forward(self, inputs, a=None):
        return self.result(*posterior(inputs, A @ M, OF_X, A @ SPREAD @ A.T), a)


class Qc(Normal):
    def forward(self, inputs, c=None):
        return self.result(*posterior(inputs, A, OF_X), c)


class QcGivenA(Normal):
    def forward(self, inputs, a, c=None):
        mean, covariance = posterior(inputs, A, OF_X, prior=SPREAD)
        return self.result(mean + a @ (covariance @ SPREAD.inverse() @ M).T, covariance, c)


class Qz(Normal):
    def forward(self, inputs, c, z=None):
        return self.result(*posterior(inputs - (c @ A.T).unsqueeze(1), B, NOISE), z)


class Pc(Normal):
    def forward(self, a, c=None):
        return self.result(a @ M.T, SPREAD, c)


class Px(Normal):
    def forward(self, c, z, x=None):
        return self.result(c @ A.T + z @ B.T, NOISE, x)


def posterior(inputs, weight, of_each, of_all=0.0, prior=I2):
    """p(v|k examples weight v + noise) for v ~ N(0, prior); of_all is the covariance of the noise that they share."""
    k = inputs.shape[1]
    precision = (of_each / k + of_all).inverse()  # of their mean
    covariance = (prior.inverse() + weight.T @ precision @ weight).inverse()
    return inputs.mean(dim=1) @ (covariance @ weight.T @ precision).T, covariance


def model_of(hierarchical=False, wrong=False):
    if hierarchical:
        return VHE([Qa(wrong, 1), QcGivenA(wrong, 2), Qz(wrong, 3)], Px(), [Pc()]).double()
    return VHE([Qc(wrong, 2), Qz(wrong, 3)], Px()).double()


def exact_log_p(sets, hierarchical=False):
    """log p(x_1, ..., x_n) of sets (B, n, 3)."""
    n = sets.shape[1]
    shared = A @ (M @ M.T + SPREAD if hierarchical else I2) @ A.T
    covariance = torch.kron(torch.ones(n, n, dtype=torch.float64), shared) + torch.kron(torch.eye(n), OF_X)
    return MultivariateNormal(torch.zeros(3 * n, dtype=torch.float64), covariance).log_prob(sets.flatten(1))


def sets_of(b, n):
    c, z = torch.randn(b, 1, 2).double(), torch.randn(b, n, 2).double()
    return c @ A.T + z @ B.T + torch.randn(b, n, 3).double() @ torch.linalg.cholesky(NOISE).T


def characters_of(sets):
    """Images that are vectors, (N, n, D), of N characters in two alphabets."""
    character = torch.arange(len(sets)).repeat_interleave(sets.shape[1])
    names = tuple(str(i) for i in range(len(sets)))
    ids = tuple(str(i) for i in range(len(character)))
    return Characters(sets.flatten(0, 1), character, character % 2, names, ("even", "odd"), ids)


class Code(nn.Module):
    """c ~ N(x, variance) given one example x (1,), scaled."""

    def __init__(self, scale, variance):
        super().__init__()
        self.scale, self.deviation = scale, nn.Parameter(torch.tensor(variance).sqrt())

    def forward(self, inputs, c=None):
        q = torch.distributions.Normal(self.scale * inputs.mean(dim=1), self.deviation)
        c = q.sample() if c is None else c
        return c, q.log_prob(c).sum(dim=1)


class Noisy(nn.Module):
    def forward(self, c, x=None):
        return x, torch.distributions.Normal(c, 1.0).log_prob(x).sum(dim=1)
