"""MMVAE in the original's manner, for comparison: a pass for each encoder and decoder, a batch's samples at once."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.distributions import Laplace

from common.data import Batch
from common.models import MultimodalVAE

SCALES = {"mnist": 3072 / 784, "svhn": 1.0}


class Plain(nn.Module):
    """The authors' forward pass and bounds on a copy of a model."""

    def __init__(self, model: MultimodalVAE) -> None:
        super().__init__()
        model = deepcopy(model)
        self.encoder, self.decoder, self.prior_scale = model.encoder, model.decoder, model.prior.scale
        self.to(memory_format=torch.contiguous_format)

    def prior(self) -> Laplace:
        return Laplace(torch.zeros_like(self.prior_scale), self.prior_scale.softmax(dim=0) * len(self.prior_scale))

    def forward(self, x: dict[str, Tensor], K: int) -> tuple[list[Laplace], list[list[Laplace]], list[Tensor]]:
        """Posteriors, what each of their samples is decoded to, [source][target], and the samples (K, B, D)."""
        posteriors, samples, decoded = [], [], []
        for name, encoder in self.encoder.items():
            loc, a = encoder(x[name])
            posteriors.append(Laplace(loc, a.softmax(dim=-1) * a.shape[-1] + 1e-6))
            samples.append(posteriors[-1].rsample((K,)))
        for z in samples:
            decoded.append([])
            for decoder in self.decoder.values():
                mean = decoder(z.reshape(-1, z.shape[-1]))
                decoded[-1].append(Laplace(mean.view(*z.shape[:2], *mean.shape[1:]), torch.tensor(0.75)))
        return posteriors, decoded, samples

    def log_weights(
        self, x: dict[str, Tensor], q: list[Laplace], decoded: list[list[Laplace]], samples: list[Tensor], scaled: bool
    ) -> list[Tensor]:
        """The log weights of each encoder's samples, (K, B)."""
        lws = []
        for z, row in zip(samples, decoded, strict=True):
            lpz = self.prior().log_prob(z).sum(-1)
            lqz_x = torch.stack([p.log_prob(z).sum(-1) for p in q])
            lqz_x = torch.logsumexp(lqz_x, dim=0) - math.log(len(q))
            lpx_z = [
                p.log_prob(x[name]).view(*z.shape[:2], -1).mul(SCALES[name] if scaled else 1.0).sum(-1)
                for name, p in zip(self.decoder, row, strict=True)
            ]
            lws.append(lpz + torch.stack(lpx_z).sum(0) - lqz_x)
        return lws

    def dreg_looser(self, x: dict[str, Tensor], K: int) -> Tensor:
        """The loss, a sum over the batch; the hook sits on z, where the original's never fired."""
        q, decoded, samples = self(x, K)
        stopped = [Laplace(p.loc.detach(), p.scale.detach()) for p in q]
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
        for source, encoder in self.encoder.items():
            for target, decoder in self.decoder.items():
                loc, a = encoder(x[source])
                q = Laplace(loc, a.softmax(dim=-1) * a.shape[-1] + 1e-6)
                z = q.rsample((K,))
                mean = decoder(z.reshape(-1, z.shape[-1]))
                p = Laplace(mean.view(K, -1, *mean.shape[1:]), torch.tensor(0.75))
                lw = self.prior().log_prob(z).sum(-1) + p.log_prob(x[target]).flatten(2).sum(-1) - q.log_prob(z).sum(-1)
                found[f"{source}, {target}"] = torch.logsumexp(lw, 0) - math.log(K)
        return found


def training_step(model: MultimodalVAE, K: int) -> Callable[[Batch], None]:
    plain = Plain(model)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, amsgrad=True, foreach=False)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = plain.dreg_looser(batch.modalities, K)
        loss.backward()
        optimizer.step()
        loss.item()

    return step
