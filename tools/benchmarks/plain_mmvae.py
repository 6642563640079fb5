"""MMVAE as the original writes it: a pass for each encoder and decoder, with all samples of a batch at once."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, Normal
from torch.nn.functional import cross_entropy, softplus

from common.data import Batch, Examples
from common.models import MultimodalVAE
from cub.captions import PADDING
from tools.benchmarks.plain_faces import as_written

AT_ONCE = 10  # pairs whose likelihoods are estimated together


def softmax_laplace(loc: Tensor, a: Tensor, min_scale: float = 1e-6) -> Laplace:
    """A Laplace distribution whose scales are D softmax(a) + min_scale."""
    return Laplace(loc, a.softmax(dim=-1) * a.shape[-1] + min_scale)


def softplus_scaled(family: type[Distribution], loc: Tensor, a: Tensor) -> Distribution:
    """A distribution whose scales are softplus(a) + 1e-6."""
    return family(loc, softplus(a) + 1e-6)


def pixels(scale: float, mean: Tensor, x: Tensor) -> Tensor:
    """log p of each number, (K, B, ...)."""
    return Laplace(mean, mean.new_tensor(scale)).log_prob(x)


def words(logits: Tensor, x: Tensor) -> Tensor:
    """log p of each word, (K, B, 32)."""
    targets = x.expand(logits.shape[:-1])
    loss = cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none", ignore_index=PADDING)
    return -loss.view(targets.shape)


class Authors(NamedTuple):
    """The authors' distributions of an experiment.

    experts: by modality, (loc, a) -> the expert.
    log_p: by modality, (decoder's output, x) -> log p of each element.
    weights: by modality, the weight of log p.
    prior: (loc, a) -> the prior.
    """

    experts: dict[str, Callable[[Tensor, Tensor], Distribution]]
    log_p: dict[str, Callable[[Tensor, Tensor], Tensor]]
    weights: dict[str, float]
    prior: Callable[[Tensor, Tensor], Distribution]


normal, laplace = partial(softplus_scaled, Normal), partial(softplus_scaled, Laplace)
AUTHORS = {
    "mnist_svhn": Authors(
        dict.fromkeys(("mnist", "svhn"), softmax_laplace),
        dict.fromkeys(("mnist", "svhn"), partial(pixels, 0.75)),
        {"mnist": 3072 / 784, "svhn": 1.0},
        partial(softmax_laplace, min_scale=0),
    ),
    "images": Authors(
        {"image": laplace, "caption": normal},
        {"image": partial(pixels, 0.01), "caption": words},
        {"image": 32 / 12288, "caption": 1.0},
        softmax_laplace,
    ),
    "features": Authors(
        dict.fromkeys(("feature", "caption"), normal),
        {"feature": partial(pixels, 0.01), "caption": words},
        {"feature": 0.002, "caption": 1.0},
        normal,
    ),
}


class Plain(nn.Module):
    """The authors' forward pass and bounds on a copy of a model."""

    def __init__(self, model: MultimodalVAE, experiment: str) -> None:
        super().__init__()
        model = as_written(model)
        self.encoder, self.decoder, self.prior_scale = model.encoder, model.decoder, model.prior.scale
        self.authors = AUTHORS[experiment]

    def prior(self) -> Distribution:
        return self.authors.prior(torch.zeros_like(self.prior_scale), self.prior_scale)

    def posterior(self, name: str, x: Tensor) -> Distribution:
        return self.authors.experts[name](*self.encoder[name](x))

    def decode(self, name: str, z: Tensor) -> Tensor:
        """The decoder's output: (K, B, D) -> (K, B, ...)."""
        return self.decoder[name](z.reshape(-1, z.shape[-1])).unflatten(0, z.shape[:2])

    def forward(self, x: dict[str, Tensor], K: int) -> tuple[list[Distribution], list[dict[str, Tensor]], list[Tensor]]:
        """The posteriors, the decoded samples of each by target, and the samples (K, B, D)."""
        posteriors = [self.posterior(name, x[name]) for name in self.encoder]
        samples = [q.rsample((K,)) for q in posteriors]
        return posteriors, [{name: self.decode(name, z) for name in self.decoder} for z in samples], samples

    def log_weights(
        self,
        x: dict[str, Tensor],
        q: list[Distribution],
        decoded: list[dict[str, Tensor]],
        samples: list[Tensor],
        scaled: bool,
    ) -> list[Tensor]:
        """The log importance weights of each posterior's samples, (K, B)."""
        weights = self.authors.weights if scaled else dict.fromkeys(self.authors.weights, 1.0)
        lws = []
        for z, row in zip(samples, decoded, strict=True):
            lpz = self.prior().log_prob(z).sum(-1)
            lqz_x = torch.stack([p.log_prob(z).sum(-1) for p in q])
            lqz_x = torch.logsumexp(lqz_x, dim=0) - math.log(len(q))
            lpx_z = [
                self.authors.log_p[name](out, x[name]).flatten(2).mul(weights[name]).sum(-1)
                for name, out in row.items()
            ]
            lws.append(lpz + torch.stack(lpx_z).sum(0) - lqz_x)
        return lws

    def dreg_looser(self, x: dict[str, Tensor], K: int) -> Tensor:
        """The loss, a sum over the batch; the hook is on z, because the original's hook never fires."""
        q, decoded, samples = self(x, K)
        stopped = [type(p)(p.loc.detach(), p.scale.detach()) for p in q]
        loss = 0
        for z, lw in zip(samples, self.log_weights(x, stopped, decoded, samples, True), strict=True):
            with torch.no_grad():
                weight = (lw - torch.logsumexp(lw, 0, keepdim=True)).exp()
                z.register_hook(lambda gradient, weight=weight: weight.unsqueeze(-1) * gradient)
            loss = loss - (weight * lw).sum() / len(q)
        return loss

    @torch.no_grad()
    def likelihoods(self, x: dict[str, Tensor], K: int) -> dict[str, Tensor]:
        """The joint bound, and log p of each target with samples of each source, a pass for each pair."""
        lw = torch.cat(self.log_weights(x, *self(x, K), False))
        estimates = {"joint": torch.logsumexp(lw, 0) - math.log(len(lw))}
        for source in self.encoder:
            for target in self.decoder:
                q = self.posterior(source, x[source])
                z = q.rsample((K,))
                log_p = self.authors.log_p[target](self.decode(target, z), x[target]).flatten(2).sum(-1)
                lw = self.prior().log_prob(z).sum(-1) + log_p - q.log_prob(z).sum(-1)
                estimates[f"{source}, {target}"] = torch.logsumexp(lw, 0) - math.log(K)
        return estimates


def training_step(model: MultimodalVAE, experiment: str, K: int) -> Callable[[Batch], None]:
    """The authors' training step on a copy of the model."""
    plain = Plain(model, experiment)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, amsgrad=True, foreach=False)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = plain.dreg_looser(batch.modalities, K)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def evaluate(experiment: str, model: MultimodalVAE, pairs: Examples, n_samples: int) -> None:
    """Estimate the likelihoods of pairs as the authors do."""
    plain = Plain(model, experiment).eval()
    for batch in pairs.batches(AT_ONCE):
        plain.likelihoods(batch.modalities, n_samples)
