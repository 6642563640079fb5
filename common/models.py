"""The one model class: six pieces and the names of its modalities."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.data import Batch, observe
from common.likelihoods import GroupedLikelihood
from common.priors import StandardGaussianPrior
from common.variational_posteriors import DiagonalGaussianPosterior
from common.variational_strategies import GaussianPoeStrategy


class MultimodalVAE(nn.Module):
    """A VAE over named modalities, p(z) prod_m p(x_m|z), with a posterior for every subset of them.

    Args:
        encoder: {name: network}, x_m (N, ...) -> parameters of its expert, a tuple of (N, D).
        variational_strategy: fuses the experts' parameters (M, B, D).
        variational_posterior: parameters -> q(z|x_S).
        decoder: {name: network}, z (N, D) -> parameters of p(x_m|z), (N, ...).
        likelihood: output of the decoder -> p(x_m|z), by name.
        prior: p(z).
        weights: {name: lambda}, what objectives weigh each modality's log-likelihood by; 1 by default.
    """

    def __init__(
        self,
        encoder: Mapping[str, nn.Module],
        variational_strategy: nn.Module,
        variational_posterior: nn.Module,
        decoder: Mapping[str, nn.Module],
        likelihood: GroupedLikelihood,
        prior: nn.Module,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoder)
        self.encoder = nn.ModuleDict(encoder)
        self.variational_strategy = variational_strategy
        self.variational_posterior = variational_posterior
        self.decoder = nn.ModuleDict(decoder)
        self.likelihood = likelihood
        self.prior = prior
        self.weights = dict.fromkeys(self.modalities, 1.0) | dict(weights or {})
        self.bf16 = False

    def encode(self, batch: Batch) -> tuple[Tensor, ...]:
        """The stacked parameters of all experts, each (M, B, D); zeros where a modality is absent."""
        experts = {}
        for m, name in enumerate(self.modalities):
            if name not in batch.modalities:
                continue
            x = batch.modalities[name]
            if batch.mask is None or batch.mask[:, m].all():
                experts[name] = self._run(self.encoder[name], x)
            else:
                rows = batch.mask[:, m].nonzero().squeeze(1)
                params = self._run(self.encoder[name], x[rows])
                experts[name] = tuple(p.new_zeros(len(batch), *p.shape[1:]).index_copy(0, rows, p) for p in params)
        absent = tuple(torch.zeros_like(p) for p in next(iter(experts.values())))
        return tuple(torch.stack(p) for p in zip(*(experts.get(n, absent) for n in self.modalities), strict=True))

    def fuse(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> Distribution:
        """q(z|x_S) of stacked experts (M, B, D) under a mask (..., B, M): batch shape (..., B)."""
        return self.variational_posterior(self.variational_strategy(params, mask))

    def posterior(self, inputs: Mapping[str, Tensor] | Batch, given: Sequence[str] | None = None) -> Distribution:
        """q(z|x_S), S what each example has of the given modalities (all of the inputs by default).

        Args:
            inputs: {name: (B, ...)}; absent modalities are left out (`common.data.observe`).
            given: () is the prior.

        Returns:
            a distribution of batch shape (B,) and event shape (D,).
        """
        batch = observe(inputs, self.modalities)
        if given is not None and len(given) == 0:
            return self.prior().expand((len(batch),))
        if given is not None:
            batch = batch.only(given, self.modalities)
        return self.fuse(self.encode(batch), batch.mask)

    def decode(self, z: Tensor, modalities: Sequence[str] | None = None) -> dict[str, Distribution]:
        """{name: p(x_m|z)} for z (..., D), batch shapes (...): of the named modalities, all by default."""
        outputs = {}
        for name in self.modalities if modalities is None else modalities:
            flat = self._run(self.decoder[name], z.reshape(-1, z.shape[-1]))
            outputs[name] = flat.reshape(*z.shape[:-1], *flat.shape[1:])
        return self.likelihood(outputs)

    def _run(self, network: nn.Module, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Only networks run in reduced precision: densities, products and sums stay in float32."""
        if not self.bf16:
            return network(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            out = network(x)
        return out.float() if isinstance(out, Tensor) else tuple(o.float() for o in out)

    @torch.no_grad()
    def generate(self, n: int) -> dict[str, Tensor]:
        """Means or modes of all modalities for n draws of z from the prior."""
        return self.likelihood.point(self.decode(self.prior().sample((n,))))

    @torch.no_grad()
    def reconstruct(self, inputs: Mapping[str, Tensor], given: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Means or modes of all modalities at the posterior's mean, given some modalities (all of the inputs)."""
        return self.likelihood.point(self.decode(self.posterior(inputs, given).mean))


def MVAE(
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
) -> MultimodalVAE:
    """The multimodal VAE of Wu & Goodman 2018 (arXiv 1802.05335): a Gaussian product of experts, N(0, I) prior."""
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=GaussianPoeStrategy(),
        variational_posterior=DiagonalGaussianPosterior(),
        decoder=decoder,
        likelihood=likelihood,
        prior=StandardGaussianPrior(latent_dim),
        weights=weights,
    )
