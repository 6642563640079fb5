"""MMVAE with the names and signatures of MultiVae (multivae.models.MMVAE); README.md lists the differences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from common.checkpoints import check_fit
from common.encoders_decoders import evaluation_mode
from common.errors import require
from common.estimators import importance_estimates, weighted_joint
from common.likelihoods import GroupedLikelihood
from common.priors import LearnedPrior
from common.variational_posteriors import MixturePosterior
from common.variational_strategies import MoeStrategy
from multivae_api import folders
from multivae_api.config import (
    FAMILIES,
    OBJECTIVES,
    MMVAEConfig,
    NamedOutputs,
    check,
    check_options,
    default_decoder,
    default_encoder,
    likelihood,
    weights,
)
from multivae_api.data import ModelOutput
from multivae_api.losses import LossesOfSamples, loss_output

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class MMVAE(LossesOfSamples):
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
        check_options(config)
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

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """The modalities' encoders as they were given, {name: network}, which cannot be replaced."""
        return MappingProxyType({name: named.network for name, named in self.encoder.items()})

    @property
    def decoders(self) -> Mapping[str, nn.Module]:
        """The modalities' decoders as they were given, {name: network}, which cannot be replaced."""
        return MappingProxyType({name: named.network for name, named in self.decoder.items()})

    def forward(
        self, inputs: object, K: int | None = None, detailed_output: bool = False, **kwargs: object
    ) -> ModelOutput:
        """Compute the loss to minimise: `loss`, `loss_sum` and `metrics`.

        The gradient of "dreg_looser" is the unbiased one (`DregIwaeElbo`). Other arguments, which MultiVae's trainers
        pass, are ignored.

        Args:
            K: importance samples from each encoder; by default the configuration's.
            detailed_output: return also what the loss was computed from, for the modalities that the batch has:
                `qz_xs`, {name: q(z|x_m)}; `qz_xs_detach`, the same with detached parameters; `zss`, {name: z (K, B,
                D)}, the samples; `recon`, {source: {name: (K, B, ...)}}, what the decoders give for each source's
                samples, decoded once more.

        Returns:
            `loss`, minus the bound's mean over the batch, `loss_sum`, its sum, and `metrics`, the means of the bound
            and its terms, nats.
        """
        config = self.model_config
        objective = OBJECTIVES[config.loss](self, config.K if K is None else K, looser=True)
        batch = self.observe(inputs)
        params, z, _ = objective.sample(batch)
        surrogate, bound = objective.surrogate(batch, objective.scorer(batch), params, z, config.beta)
        output = loss_output({"bound": surrogate} | bound.terms)
        if detailed_output:
            output.update(self.details(batch, params, z))
        return output

    @torch.no_grad()
    def encode(
        self,
        inputs: object,
        cond_mod: Sequence[str] | str = "all",
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
            flatten: return z as (N * B, D), one draw of all B examples after the other.

        Returns:
            `z`, (B, D) for N = 1 and (B, N, D) else; and `one_latent_space`, True.
        """
        batch = self.observe(inputs)
        require(N > 0, f"N must be positive, not {N}")
        batch = batch.only(_names(cond_mod, tuple(batch.modalities)), self.columns)
        q, p = self.posterior(batch), self.prior().expand((len(batch),))
        z, from_prior = (x.mean.expand(N, *x.mean.shape) if return_mean else x.sample((N,)) for x in (q, p))
        has_any = batch.mask.any(dim=1)[:, None]  # without any modality, q(z|x_S) is the prior
        z = torch.where(has_any, z, from_prior)  # (N, B, D)
        z = z.flatten(0, 1) if flatten or N == 1 else z.transpose(0, 1).contiguous()
        return ModelOutput(z=z, one_latent_space=True)

    def decode(
        self,
        embedding: ModelOutput | Tensor,
        modalities: Sequence[str] | str = "all",
        given: Mapping[str, Tensor] | None = None,
    ) -> ModelOutput | dict[str, Distribution]:
        """Decode what `encode` or `generate_from_prior` returned; or a tensor z, as any `MultimodalVAE` does.

        Args:
            embedding: with `z`, (..., D); or the tensor.
            modalities: "all", a modality's name, or several names.
            given: see `MultimodalVAE.decode`.

        Returns:
            {name: what the decoder gives, (..., *shape)}, without gradients and in evaluation mode, for a Bernoulli
            likelihood the logits. For a tensor {name: p(x_m|z)}, batch shape (...), in the model's mode.
        """
        names = _names(modalities, self.modalities)
        if isinstance(embedding, Tensor):
            return super().decode(embedding, names, given)
        require(
            isinstance(embedding, Mapping) and isinstance(embedding.get("z"), Tensor),
            "decode needs what encode or generate_from_prior returned, with a tensor z, or a tensor (got a "
            f"{type(embedding).__name__})",
        )
        with evaluation_mode(self), torch.no_grad():
            return ModelOutput(self.decoder_outputs(embedding["z"], names))

    @torch.no_grad()
    def predict(
        self,
        inputs: object,
        cond_mod: Sequence[str] | str = "all",
        gen_mod: Sequence[str] | str = "all",
        N: int = 1,
        flatten: bool = False,
        **kwargs: object,
    ) -> ModelOutput:
        """Generate modalities given others, in evaluation mode: encode N times, then decode.

        Args:
            cond_mod, N: as for `encode`, which also gets the other arguments, such as return_mean.
            gen_mod: "all", a modality's name, or several names.
            flatten: return (N * B, ...), as `encode` does.

        Returns:
            {name: what the decoder gives, (B, ...) for N = 1 and (N, B, ...) else}.
        """
        with evaluation_mode(self):
            output = self.decode(self.encode(inputs, cond_mod, N, flatten=True, **kwargs), gen_mod)
        if flatten or N == 1:
            return output
        return ModelOutput({name: x.unflatten(0, (N, -1)) for name, x in output.items()})

    @torch.no_grad()
    def generate_from_prior(self, n_samples: int, **kwargs: object) -> ModelOutput:
        """Draw `z`, (n_samples, D), from the prior.

        Raises:
            InputError: no samples.
        """
        require(n_samples > 0, f"n_samples must be positive, not {n_samples}")
        return ModelOutput(z=self.prior().sample((n_samples,)), one_latent_space=True)

    def save(self, dir_path: str | Path) -> None:
        """Write the configuration and the parameters into a folder, for `load_from_folder`.

        Raises:
            InputError: a likelihood is a function, or the folder cannot be written.
        """
        folders.write(Path(dir_path), self.model_config, self.state_dict())

    @classmethod
    def load_from_folder(
        cls,
        dir_path: str | Path,
        encoders: Mapping[str, nn.Module] | None = None,
        decoders: Mapping[str, nn.Module] | None = None,
    ) -> "MMVAE":
        """Make the model that `save` wrote into a folder, in evaluation mode. Nothing but tensors is unpickled.

        Args:
            encoders, decoders: {name: network} of the same kinds as in the saved model, if it had any but the default
                ones; their parameters are replaced.

        Raises:
            InputError: a file is missing, damaged or foreign, networks are lacking, or the parameters do not fit them.
        """
        folder = Path(dir_path)
        config = folders.read_config(folder)
        networks = {"encoders": encoders, "decoders": decoders}
        lacking = [name for name in config.custom_architectures if networks.get(name) is None]
        require(
            not lacking,
            f"{folder} holds a model with {' and '.join(lacking)} of its own, whose code is not saved: give "
            f"load_from_folder such networks, {', '.join(f'{name}={{name: network}}' for name in lacking)}",
        )
        parameters = folders.read_parameters(folder)
        with torch.device("meta"):  # allocates nothing: the options may ask for too much memory
            sizes = cls(config, **networks)
        check_fit(parameters, sizes, f"{folder} does not fit the networks", "give those that were saved")
        model = cls(config, **networks)
        model.load_state_dict(parameters)
        return model.eval()

    @torch.no_grad()
    def compute_joint_nll(self, inputs: object, K: int = 1000, batch_size_K: int = 100) -> Tensor:
        """Estimate -log p of all modalities that each example has, summed over the batch, nats.

        By importance sampling from the mixture of the example's experts. An example without any modality counts 0.

        Args:
            K: importance samples for each example.
            batch_size_K: samples to decode at once.
        """
        batch = self.observe(inputs)
        mask = torch.stack([*self.present(batch).values()], dim=1)
        (joint,) = importance_estimates(self, batch, [mask], mask, n_samples=K, at_once=batch_size_K)
        return -joint.value.sum()

    @torch.no_grad()
    def compute_joint_nll_paper(self, inputs: object, K: int = 1000, batch_size_K: int = 10) -> Tensor:
        """The figure that the paper reports in place of -log p(X), summed over the batch, nats.

        It keeps the rescaling of the log-likelihoods, so that it is not a likelihood (`estimators.weighted_joint`).

        Args:
            K: importance samples from each encoder.
            batch_size_K: samples from each encoder to decode at once.
        """
        return -weighted_joint(self, self.observe(inputs), K, batch_size_K).sum()

    def log_var_to_std(self, log_var: Tensor) -> Tensor:
        """The scales (..., D) for an encoder's second output: D softmax(log_var) + 1e-6, or exp(log_var / 2)."""
        family = self.variational_posterior.component
        return family((torch.zeros_like(log_var), log_var)).scales

    @property
    def pz_params(self) -> tuple[Tensor, Tensor]:
        """The prior's location and scales, each (D,)."""
        return self.prior().mean, self.prior().scales


def _names(modalities: Sequence[str] | str, of_all: tuple[str, ...]) -> tuple[str, ...]:
    """The names that "all", a name, or several names stand for."""
    if modalities == "all":
        return of_all
    return (modalities,) if isinstance(modalities, str) else tuple(modalities)
