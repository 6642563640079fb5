"""What each objective expects of an example, in closed form, on linear-Gaussian models whose experts may be off."""

import itertools
import math
from contextlib import contextmanager

from tests.helpers.fusions import subsets_of
from tests.helpers.linear_gaussian import expected_log_p
from tests.helpers.objectives import kl_to_prior
from tests.helpers.private_latents import N_SHARED, PLACES

import pytest
import torch
from torch.distributions import Normal, kl_divergence

STRATA = 42  # a multiple of the numbers of components (1, 2, 3, 7) and of orders (1, 2, 6) of up to three modalities
SHARED = slice(N_SHARED)
RHO = 0.4  # of the fusion code
SUBSETS = ("mopoe", "mopoe-published", "mwb", "code")  # mixtures with a component for each subset


class Known:
    """An example under a model with a fusion: its posteriors and expectations by textbook formulas.

    Args:
        model: of `tests.helpers.fusions.with_fusion`, or of `private_linear_gaussian`.
        weights, scales: W_m and s_m.
        inputs: the example, {name: (1, N_m)}.
    """

    def __init__(self, model, fusion, weights, scales, inputs):
        self.fusion, self.weights, self.scales, self.inputs = fusion, weights, scales, inputs
        self.places = PLACES if model.private else {}
        self.modalities = model.modalities
        self.logits = getattr(model.variational_strategy, "logits", None)
        self.experts = {}  # {encoder's key: mean and precision (D,)}
        for key, encoder in model.encoder.items():
            mu, logvar = (x.detach()[0] for x in encoder(*(inputs[name] for name in key.split(","))))
            self.experts[key] = (mu, (-logvar).exp())

    def posterior(self, given, encoded=None):
        """The components of q(z|x_S), means and variances (T, D), with the private latents of `encoded` or S."""
        parts = [self._component(subset) for subset in self._components(given)] or [(torch.zeros(N_SHARED),) * 2]
        mean, precision = (torch.stack(part).double() for part in zip(*parts, strict=True))
        variance = 1 / precision if given else torch.ones_like(mean)
        if self.fusion == "helvae" and given:  # the moments of the mixture
            pi = self.pi(given)
            mean, variance = pi @ mean, pi @ (variance + mean**2) - (pi @ mean) ** 2
            mean, variance = mean[None], variance[None]
        for name in self.places:
            place = self.places[name]
            own = torch.zeros(2, place.stop - place.start).double() + torch.tensor([[0.0], [1.0]])
            if name in (given if encoded is None else encoded):
                mu, of_own = (x[N_SHARED:] for x in self.experts[name])
                own = torch.stack([mu, 1 / of_own])
            own = own[:, None].expand(-1, len(mean), -1)
            mean, variance = torch.cat([mean, own[0]], dim=1), torch.cat([variance, own[1]], dim=1)
        return mean, variance

    def _components(self, given):
        """The subsets whose experts are multiplied, one for each component."""
        if self.fusion == "moe":
            return [(name,) for name in given]
        if self.fusion in ("hoelder", "helvae"):
            return list(itertools.combinations_with_replacement(given, 2))
        return subsets_of(given) if self.fusion in SUBSETS else [given] * bool(given)

    def pi(self, given):
        """The weights of the components, (T,)."""
        components = self._components(given)
        weight = torch.ones(max(len(components), 1)).double()
        if self.fusion == "code" and given:
            of_all = dict(zip(map(frozenset, self._in_binary_order()), self.logits.exp(), strict=True))
            weight = torch.stack([of_all[frozenset(subset)] for subset in components])
        if self.fusion in ("hoelder", "helvae") and given:
            weight = torch.stack([self._bhattacharyya(*pair) * (1 + (pair[0] != pair[1])) for pair in components])
        return weight / weight.sum()

    def _in_binary_order(self):
        names = self.modalities
        return [[name for i, name in enumerate(names) if code >> i & 1] for code in range(1, 2 ** len(names))]

    def _bhattacharyya(self, i, j):
        """The integral of the root of the product of two experts' densities."""
        (mu_i, v_i), (mu_j, v_j) = (
            (x[SHARED] ** (-1 if k else 1) for k, x in enumerate(self.experts[m])) for m in (i, j)
        )
        distance = (mu_i - mu_j) ** 2 / (v_i + v_j) / 4 + ((v_i + v_j) / (v_i * v_j).sqrt() / 2).log() / 2
        return (-distance.sum()).exp()

    def _component(self, subset):
        """The mean and the precision of the shared latents, (2,) each."""
        if self.fusion in ("own", "joint", "jnf"):
            return self.experts[",".join(subset)]
        prior = {"poe": 1, "quotient": 1, "mopoe": 1, "mopoe-published": len(subset) == len(self.weights)}
        each = 1 if self.fusion == "quotient" else 0  # what a posterior's precision has more than its expert's
        experts = [tuple(x[SHARED] for x in self.experts[name]) for name in subset]
        if self.fusion in ("hoelder", "helvae"):  # the root of a product
            total = sum(precision for _, precision in experts)
            return sum(precision * mu for mu, precision in experts) / total, total / 2
        if self.fusion in ("wb", "mwb"):
            mean, scale = (sum(x) / len(subset) for x in zip(*((mu, t.rsqrt()) for mu, t in experts), strict=True))
            return mean, scale**-2
        if self.fusion == "code":
            return self._consensus(*(torch.stack(x) for x in zip(*experts, strict=True)))
        total = prior.get(self.fusion, 0) + sum(precision for _, precision in experts)
        return sum((precision + each) * mu for mu, precision in experts) / total, total

    @staticmethod
    def _consensus(mu, precision):
        """Of dependent experts, by full matrices: mean and precision (D,), from (M, D) each."""
        scales = precision.rsqrt().T  # (D, M)
        correlation = torch.full((len(mu), len(mu)), RHO, dtype=torch.float64).fill_diagonal_(1)
        inverse = torch.linalg.inv(scales[:, :, None] * correlation * scales[:, None])  # (D, M, M)
        return (inverse.sum(dim=1) * mu.T).sum(dim=1) / inverse.sum(dim=(1, 2)), inverse.sum(dim=(1, 2))

    def log_p(self, q, names, lambdas):
        """The sum of lambda_m E log p(x_m|z) over z of q's components, (T,)."""
        return sum(lambdas[m] * expected_log_p(self.weights, self.scales, self.inputs, m, *q) for m in names)

    def elbo(self, given, lambdas, beta, scored=None, encoded=None):
        """E log p of what is scored (default: what is given) less beta KL(q(z|x_S) || p(z)), a mean over components."""
        q = self.posterior(given, encoded)
        elbos = self.log_p(q, scored or given, lambdas) - beta * kl_to_prior(*q)  # (T,)
        return elbos[0] if len(elbos) == 1 else self.pi(given) @ elbos

    def kl(self, given, other):
        """KL(q(z|x_S) || q(z|x_R))."""
        q, p = (Normal(mean[0], variance[0].sqrt()) for mean, variance in map(self.posterior, (given, other)))
        return kl_divergence(q, p).sum()

    def expected(self, obj, pattern, lambdas, beta, alpha):
        """The expectation of an objective over its noise, for an example with the modalities of a pattern."""
        if not pattern:
            return torch.zeros(()).double()
        m, singles = len(self.weights), [(name,) for name in pattern]
        subsets = singles + [pattern] * (len(pattern) > 1)
        if obj in ("mvae", "telbo"):
            return sum(self.elbo(subset, lambdas, beta) for subset in subsets)
        if obj == "dmvae":
            return sum(self.elbo(subset, lambdas, beta, pattern, pattern) for subset in subsets)
        if obj == "mmvm":
            return sum(self._from_its_own(name, pattern, lambdas, beta, alpha) for name in pattern)
        if obj == "mmjsd":
            return self._mmjsd(pattern, lambdas, beta)
        if obj == "ar":
            orders = [self._chain(order, lambdas, beta) for order in itertools.permutations(pattern)]
            return sum(orders) / len(orders)
        if obj in ("jmvae", "student", "jnf", "mvtcae", "crmvae"):
            joint, kl = self.posterior(pattern), self.elbo(pattern, lambdas, 0) - self.elbo(pattern, lambdas, 1)
            log_p, distance = self.log_p(joint, pattern, lambdas).mean(), sum(self.kl(pattern, s) for s in singles)
            if obj == "mvtcae":
                return (m - alpha) / m * log_p - beta * ((1 - alpha) * kl + alpha / m * distance)
            if obj == "crmvae":
                own = sum(self.log_p(self.posterior(s), s, lambdas).mean() for s in singles)
                return (log_p + own) / (2 * (m + 1)) - beta / (m + 1) * (kl + distance)
            return log_p - beta * kl - (1 if obj == "jnf" else alpha) * distance
        return self.elbo(pattern, lambdas, beta)

    def _from_its_own(self, name, pattern, lambdas, beta, alpha):
        """MMVM's part of a modality."""
        kls = sum(self.kl((name,), (other,)) for other in pattern) / len(pattern)
        prior = kl_to_prior(*self.posterior((name,))).mean()
        return self.log_p(self.posterior((name,)), (name,), lambdas).mean() - beta * ((1 - alpha) * kls + alpha * prior)

    def _chain(self, order, lambdas, beta):
        """The chain rule in one order: each modality scored by the posterior of it and those before, from theirs."""
        value = 0
        for i in range(len(order)):
            before, now = (tuple(n for n in self.weights if n in order[:k]) for k in (i, i + 1))
            log_p = self.log_p(self.posterior(now), order[i : i + 1], lambdas).mean()
            value = value + log_p - beta * self.kl(now, before)
        return value

    def geometric_mean(self, pattern):
        """mmJSD's f(z|X), of the experts and the prior with equal powers."""
        mean, variance = self._with_prior(pattern)
        precision = (1 / variance).mean(dim=0)
        return Normal((mean / variance).mean(dim=0) / precision, precision.rsqrt())

    def _with_prior(self, pattern):
        return [torch.cat(pair) for pair in zip(self.posterior(()), self.posterior(pattern), strict=True)]

    def _mmjsd(self, pattern, lambdas, beta):
        """Over the experts and the prior, with KLs to their geometric mean."""
        mean, variance = self._with_prior(pattern)
        kls = kl_divergence(Normal(mean, variance.sqrt()), self.geometric_mean(pattern)).sum(dim=-1)
        return (self.log_p((mean, variance), pattern, lambdas) - beta * kls).mean()


def n_rows(d):
    """The number of copies of an example for which `exact_noise` is exact, with d latents."""
    return 2 * d * STRATA


@contextmanager
def exact_noise(d, n_examples):
    """Noise under which the mean of a bound over an example's `n_rows(d)` copies is its expectation.

    A copy's Gaussian noise is one of 2 D points, +-sqrt(D) along an axis: over these the mean of a quadratic function
    is its expectation. Choices of components and orders of the modalities are stratified.

    Args:
        n_examples: copies of different examples alternate.
    """
    n = n_rows(d)
    copy = torch.arange(n).repeat_interleave(n_examples)
    points = math.sqrt(d) * torch.cat([torch.eye(d), -torch.eye(d)]).double()[copy % (2 * d)]  # (rows, D)
    stratum = copy // (2 * d)

    def gaussian(shape, dtype, device):
        axis = list(shape).index(len(copy))
        return points.view(*(len(copy) if i == axis else 1 for i in range(len(shape) - 1)), d).expand(shape)

    def order(rows, m, device):
        return torch.tensor(list(itertools.permutations(range(m))))[stratum % math.factorial(m)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributions.normal._standard_normal", gaussian)
        patch.setattr(torch, "rand", order)
        patch.setattr(torch, "rand_like", lambda x: (stratum + 0.5).to(x) / STRATA)
        yield
