"""MMVAE with the names and signatures of MultiVae (multivae.models.MMVAE), made of this repository's pieces."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.data.batches import Batch
from common.errors import require
from common.estimators import log_marginal, weighted_joint
from common.experts import mixture_log_prob
from common.likelihoods import GroupedLikelihood
from common.multimodal_vae import MultimodalVAE
from common.priors import LearnedPrior
from common.variational_posteriors import MixturePosterior
from common.variational_strategies import MoeStrategy
from multivae_api.config import (
    FAMILIES,
    OBJECTIVES,
    MMVAEConfig,
    NamedOutputs,
    check,
    default_decoder,
    default_encoder,
    likelihood,
    weights,
)


class ModelOutput(dict):
    """Named results, as items and as attributes: output["z"], output.z."""

    def __getattr__(self, name: str) -> object:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class MMVAE(MultimodalVAE):
    """The mixture-of-experts VAE (Shi et al. 2019, arXiv 1911.03393), also for partially observed data.

    Inputs are {name: (B, ...)}, with absent modalities left out or NaN; or an object or mapping that has these as
    `data`, and optionally `masks`, {name: (B,) bool}, True where an example has the modality.

    Args:
        model_config: see MMVAEConfig.
        encoders: {name: network}, x (N, ...) -> location and log-variance (for Laplace: the logits of the scales'
            softmax), each (N, D), as a tuple or an output with `embedding` and `log_covariance`; by default one hidden
            layer.
        decoders: {name: network}, z (N, D) -> (N, ...), as a tensor or an output with `reconstruction`; by default one
            hidden layer.

    Raises:
        InputError: an impossible configuration, or one that lacks what the default networks need.
    """

    def __init__(
        self,
        model_config: MMVAEConfig,
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        custom = [name for name, x in (("encoders", encoders), ("decoders", decoders)) if x is not None]
        config = replace(model_config, custom_architectures=custom)
        names = tuple(encoders or decoders or config.input_dims or ())
        check(config, names, encoders, decoders)
        d = config.latent_dim
        if encoders is None:
            encoders = {name: default_encoder(shape, d) for name, shape in config.input_dims.items()}
        if decoders is None:
            decoders = {name: default_decoder(shape, d) for name, shape in config.input_dims.items()}
        encoder = {name: NamedOutputs(encoders[name], ("embedding", "log_covariance")) for name in names}
        decoder = {name: NamedOutputs(decoders[name], ("reconstruction",)) for name in names}
        family = FAMILIES[config.prior_and_posterior_dist]()
        super().__init__(
            encoder=encoder,
            variational_strategy=MoeStrategy(),
            variational_posterior=MixturePosterior(family),
            decoder=decoder,
            likelihood=GroupedLikelihood(**{name: likelihood(config, name, decoder[name]) for name in names}),
            prior=LearnedPrior(family, d, learn=config.learn_prior, learn_loc=config.learn_prior),
            weights=weights(config),
        )
        self.model_config = config

    def forward(self, inputs: object, **kwargs: object) -> ModelOutput:
        """`loss`, minus the bound, to minimise, and `metrics`, the bound and its terms: means over the batch, nats.

        The gradient of "dreg_looser" is the unbiased one (`DregIwaeElbo`). Other arguments, which MultiVae's trainers
        pass, are ignored.
        """
        config = self.model_config
        objective = OBJECTIVES[config.loss](self, config.K, looser=True)
        loss, bound = objective.loss(self._observe(inputs), config.beta)
        return _output(loss, {"bound": bound.value} | bound.terms)

    @torch.no_grad()
    def encode(
        self,
        inputs: object,
        cond_mod: list[str] | str = "all",
        N: int = 1,
        return_mean: bool = False,
        flatten: bool = False,
        **kwargs: object,
    ) -> ModelOutput:
        """Encode each example N times, given the modalities of cond_mod that it has.

        Args:
            cond_mod: "all", a modality's name, or a list of names.
            N: draws of q(z|x_S) for each example.
            return_mean: return the mean of q(z|x_S), N times, instead of draws.
            flatten: return z as (B * N, D).

        Returns:
            `z`, (B, N, D).
        """
        batch = self._observe(inputs)
        given = batch.modalities if cond_mod == "all" else [cond_mod] if isinstance(cond_mod, str) else cond_mod
        require(N > 0, f"N must be positive, not {N}")
        batch = batch.only(tuple(given), self.columns)
        q, p = self.posterior(batch), self.prior()
        z, from_prior = (x.mean.expand(N, *x.mean.shape) if return_mean else x.sample((N,)) for x in (q, p))
        has_any = batch.mask.any(dim=1)[:, None]  # without any modality, q(z|x_S) is the prior
        z = torch.where(has_any, z, from_prior.view(N, 1, -1))  # (N, B, D)
        z = z.transpose(0, 1).contiguous()  # (B, N, D)
        return ModelOutput(z=z.flatten(0, 1) if flatten else z, one_latent_space=True)

    @torch.no_grad()
    def generate_from_prior(self, n_samples: int, **kwargs: object) -> ModelOutput:
        """Draw `z`, (n_samples, D), from the prior."""
        return ModelOutput(z=self.prior().sample((n_samples,)), one_latent_space=True)

    @torch.no_grad()
    def compute_joint_nll(self, inputs: object, K: int = 1000, batch_size_K: int = 100) -> Tensor:
        """Estimate -log p of all modalities that each example has, summed over the batch, nats.

        By importance sampling from the mixture of the example's experts. An example without any modality counts 0.

        Args:
            K: importance samples for each example.
            batch_size_K: samples to decode at once.
        """
        batch = self._observe(inputs)
        mask = (
            torch.ones(len(batch), len(self.modalities), dtype=torch.bool) if batch.mask is None else batch.mask.cpu()
        )
        nll = next(iter(batch.modalities.values())).new_zeros(())
        for pattern in mask[mask.any(dim=1)].unique(dim=0):
            given = [name for name, present in zip(self.modalities, pattern, strict=True) if present]
            rows = (mask == pattern).all(dim=1)
            inputs_of_pattern = {name: batch.modalities[name][rows] for name in given}
            nll = nll - log_marginal(self, inputs_of_pattern, given, n_samples=K, at_once=batch_size_K).sum()
        return nll

    @torch.no_grad()
    def compute_joint_nll_paper(self, inputs: object, K: int = 1000, batch_size_K: int = 10) -> Tensor:
        """The figure that the paper reports in place of -log p(X), summed over the batch, nats.

        It keeps the rescaling of the log-likelihoods, so that it is not a likelihood (`estimators.weighted_joint`).

        Args:
            K: importance samples from each encoder.
            batch_size_K: samples from each encoder to decode at once.
        """
        return -weighted_joint(self, self._observe(inputs), K, batch_size_K).sum()

    def compute_k_lws(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> dict[str, Tensor]:
        """The log importance weights of each encoder's samples, {name: (K, B)}, nats, not aggregated.

        Args:
            qz_xs: {name: q(z|x_m)}, batch shape (B,), event shape (D,).
            embeddings: {name: z (K, B, D)}, samples from each q(z|x_m).
            reconstructions: {source: {name: decoder's output (K, B, ...)}}, from the samples of each source.
        """
        batch = self._observe(inputs)
        present = self._present(batch)
        has_expert = torch.stack([present[name] for name in qz_xs], dim=1)  # (B, T)
        # an example without any gets all experts here, so that log q is finite; it has no weight in the bounds
        has_expert = has_expert | ~has_expert.any(dim=1, keepdim=True)
        lws = {}
        for source, z in embeddings.items():
            log_q = mixture_log_prob(torch.stack([q.log_prob(z) for q in qz_xs.values()]), has_expert)
            lws[source] = self.model_config.beta * (self.prior().log_prob(z) - log_q)
            for name, p in self.likelihood(reconstructions[source]).items():
                if name in batch.modalities:
                    log_p = p.log_prob(batch.modalities[name])
                    lws[source] = lws[source] + self.weights[name] * torch.where(present[name], log_p, 0)
        return lws

    def iwae_looser(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> ModelOutput:
        """`loss` and `metrics` of IWAE's looser bound, with its own gradient. Arguments as for `compute_k_lws`."""
        lws = self.compute_k_lws(qz_xs, embeddings, reconstructions, inputs)
        bound = self._looser(lws, inputs)
        return _output(-bound, {"bound": bound})

    def dreg_looser(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> ModelOutput:
        """The same bound with the paper's DReG gradient, biased for mixtures; `forward` has the unbiased one.

        Args:
            qz_xs: as for `compute_k_lws`, with detached parameters.
            embeddings: as for `compute_k_lws`; they get hooks that scale their gradient in the next backward pass.
            reconstructions, inputs: as for `compute_k_lws`.
        """
        lws = self.compute_k_lws(qz_xs, embeddings, reconstructions, inputs)
        present = self._present(self._observe(inputs))
        share = torch.stack([present[name] for name in lws]).float()
        share = share / share.sum(dim=0).clamp(min=1)
        surrogate = 0
        for pi, (name, lw) in zip(share, lws.items(), strict=True):
            w = lw.detach().softmax(dim=0)  # (K, B)
            surrogate = surrogate + pi * (w * lw).sum(dim=0)
            if embeddings[name].requires_grad:
                embeddings[name].register_hook(lambda gradient, w=w: gradient * w.unsqueeze(-1))
        return _output(-surrogate, {"bound": self._looser(lws, inputs)})

    def log_var_to_std(self, log_var: Tensor) -> Tensor:
        """The scales (..., D) for an encoder's second output: D softmax(log_var) + 1e-6, or exp(log_var / 2)."""
        family = self.variational_posterior.component
        return family.scales(family((torch.zeros_like(log_var), log_var)))

    @property
    def pz_params(self) -> tuple[Tensor, Tensor]:
        """The prior's location and scales, each (D,)."""
        return self.prior().mean, self.variational_posterior.component.scales(self.prior())

    def _looser(self, lws: Mapping[str, Tensor], inputs: object) -> Tensor:
        """The mean of log 1/K sum_k w_k over the encoders of the modalities that an example has, (B,), nats."""
        present = self._present(self._observe(inputs))
        values = {name: lw.logsumexp(dim=0) - math.log(len(lw)) for name, lw in lws.items()}
        total = sum(torch.where(present[name], value, 0) for name, value in values.items())
        return total / sum(present[name].float() for name in values).clamp(min=1)

    def _present(self, batch: Batch) -> dict[str, Tensor]:
        """Which examples have each modality, {name: (B,) bool}."""
        x = next(iter(batch.modalities.values()))
        mask = x.new_ones(len(x), len(self.modalities), dtype=torch.bool) if batch.mask is None else batch.mask
        return dict(zip(self.modalities, mask.unbind(dim=1), strict=True))

    def _observe(self, inputs: object) -> Batch:
        """A Batch from any of the inputs that the class takes."""
        if isinstance(inputs, Mapping) and "data" in inputs and "data" not in self.modalities:
            inputs = SimpleNamespace(**inputs)
        if isinstance(inputs, Batch | Mapping):
            return self.observe(inputs)
        batch, masks = self.observe(inputs.data), getattr(inputs, "masks", None)
        if masks is None:
            return batch
        present = self._present(batch)
        mask = torch.stack([x & masks.get(name, x).bool() for name, x in present.items()], dim=1)
        return Batch(batch.modalities, None if mask.all() else mask)


def _output(loss: Tensor, metrics: Mapping[str, Tensor]) -> ModelOutput:
    """Average over the batch. The loss has the value of minus the bound and the gradient of `loss`, (B,)."""
    means = {name: x.detach().mean() for name, x in metrics.items()}
    loss = loss.mean()
    return ModelOutput(loss=loss + (-means["bound"] - loss).detach(), metrics=means)
