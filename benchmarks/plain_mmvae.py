"""MMVAE in the original's manner, for comparison: a pass for each encoder and decoder, a batch's samples at once."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, Normal
from torch.nn.functional import cross_entropy, softplus

from benchmarks.plain_faces import as_written
from common.data import Batch, Examples
from common.models import MultimodalVAE
from cub.captions import PADDING

AT_ONCE = 10  # pairs whose likelihoods are estimated


def of_softmax(loc: Tensor, a: Tensor, eta: float = 1e-6) -> Laplace:
    return Laplace(loc, a.softmax(dim=-1) * a.shape[-1] + eta)


def of_softplus(family: type[Distribution], loc: Tensor, a: Tensor) -> Distribution:
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
    """Their distributions of an experiment: the experts and the prior of (loc, a), log p of a decoder's output and x
    by element, its weight, by modality."""

    experts: dict[str, Callable[[Tensor, Tensor], Distribution]]
    log_p: dict[str, Callable[[Tensor, Tensor], Tensor]]
    weights: dict[str, float]
    prior: Callable[[Tensor, Tensor], Distribution]


normal, laplace = partial(of_softplus, Normal), partial(of_softplus, Laplace)
AUTHORS = {
    "mnist_svhn": Authors(
        dict.fromkeys(("mnist", "svhn"), of_softmax),
        dict.fromkeys(("mnist", "svhn"), partial(pixels, 0.75)),
        {"mnist": 3072 / 784, "svhn": 1.0},
        partial(of_softmax, eta=0),
    ),
    "images": Authors(
        {"image": laplace, "caption": normal},
        {"image": partial(pixels, 0.01), "caption": words},
        {"image": 32 / 12288, "caption": 1.0},
        of_softmax,
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
        self.of = AUTHORS[experiment]

    def prior(self) -> Distribution:
        return self.of.prior(torch.zeros_like(self.prior_scale), self.prior_scale)

    def posterior(self, name: str, x: Tensor) -> Distribution:
        return self.of.experts[name](*self.encoder[name](x))

    def decode(self, name: str, z: Tensor) -> Tensor:
        """(K, B, D) -> (K, B, ...)."""
        return self.decoder[name](z.reshape(-1, z.shape[-1])).unflatten(0, z.shape[:2])

    def forward(self, x: dict[str, Tensor], K: int) -> tuple[list[Distribution], list[dict[str, Tensor]], list[Tensor]]:
        """Posteriors, what each of their samples is decoded to, by source and target, and the samples (K, B, D)."""
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
        """The log weights of each encoder's samples, (K, B)."""
        lws = []
        for z, row in zip(samples, decoded, strict=True):
            lpz = self.prior().log_prob(z).sum(-1)
            lqz_x = torch.stack([p.log_prob(z).sum(-1) for p in q])
            lqz_x = torch.logsumexp(lqz_x, dim=0) - math.log(len(q))
            lpx_z = [
                self.of.log_p[name](out, x[name]).flatten(2).mul(self.of.weights[name] if scaled else 1.0).sum(-1)
                for name, out in row.items()
            ]
            lws.append(lpz + torch.stack(lpx_z).sum(0) - lqz_x)
        return lws

    def dreg_looser(self, x: dict[str, Tensor], K: int) -> Tensor:
        """The loss, a sum over the batch; the hook sits on z, where the original's never fired."""
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
        """The joint bound of all samples, and log p of each modality with samples of each encoder: a pass for each."""
        lw = torch.cat(self.log_weights(x, *self(x, K), False))
        found = {"joint": torch.logsumexp(lw, 0) - math.log(len(lw))}
        for source in self.encoder:
            for target in self.decoder:
                q = self.posterior(source, x[source])
                z = q.rsample((K,))
                log_p = self.of.log_p[target](self.decode(target, z), x[target]).flatten(2).sum(-1)
                lw = self.prior().log_prob(z).sum(-1) + log_p - q.log_prob(z).sum(-1)
                found[f"{source}, {target}"] = torch.logsumexp(lw, 0) - math.log(K)
        return found


def training_step(model: MultimodalVAE, experiment: str, K: int) -> Callable[[Batch], None]:
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
    plain = Plain(model, experiment).eval()
    for batch in pairs.batches(AT_ONCE):
        plain.likelihoods(batch.modalities, n_samples)
