"""The one model class: six pieces and the modalities that they serve."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from common.data.batches import Batch, n_columns, observe
from common.distributions.base import LatentDistribution
from common.encoders_decoders import evaluation_mode, expert_params, expert_params_where, n_elements, outputs
from common.errors import InputError, require, require_names
from common.likelihoods import GroupedLikelihood, check_class, check_shape
from common.modalities import DecoderRecord, Modality, decoder_records, modalities_of, stack_values
from common.private_latents import with_auxiliary, with_private
from common.values import check_values

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class MultimodalVAE(nn.Module):
    """A VAE over named modalities, p(z) prod_m p(x_m|z), with a posterior for every subset of them.

    `modalities` are the names, `modality[name]` the record of one (`common.modalities.Modality`), `columns[name]` its
    columns of a mask (B, M), `weights[name]` its lambda. `modelled` are the modalities that have a decoder, `private`
    the records of those with private latents.

    Args:
        encoder: {name: network}, x_m (N, ...) -> parameters of its expert, a tuple of (N, D). A network that sees
            several modalities, x_1, x_2 -> parameters, has their names joined by commas. A network with `n_elements` =
            n (`common.encoders_decoders.SharedNetwork`) encodes a set of n like elements, each with an expert, each
            free to be absent: x (N, n, ...) -> parameters (N, n, D). With n names it encodes n modalities of the same
            shape; it gets (N, n, ...). A missing value is 0. A network with `takes_observed` gets, after the values,
            which of them are there (`common.encoders_decoders.WithMissing`).
        variational_strategy: fuses the experts' parameters, (M, B, D): one for each encoder, for a set each element.
        variational_posterior: parameters -> q(z|x_S).
        decoder: {name: network}, z (N, D) -> parameters of p(x_m|z), (N, ...), for a set (N, n, ...). A network
            z, x_l -> parameters of p(x_m|z, x_l) has the name "m|l". A network that decodes several modalities, z -> a
            tuple of (N, ...) or one (N, M, ...), has their names joined by commas. The modalities of a `StackedDecoder`
            have likelihoods of one kind. A modality without a decoder is given and never modelled.
        likelihood: output of the decoder -> p(x_m|z), by name.
        prior: p(z).
        weights: {name: lambda}, what objectives weigh each modality's log-likelihood by; 1 by default.
        auxiliary: for MMVAE+ the priors r(w_m) that training draws private latents from where another modality's
            expert gives the shared ones; a module with `params` like the prior's.
        private: {name: number of private latents}. z then holds the shared latents, followed by the private ones in
            the modalities' order. A modality's encoder and decoder use the shared latents and its own. Without the
            modality the posterior of its own latents is the prior (`with_private`).

    Raises:
        InputError: a prior, private latents or encoders that the strategy or the posterior family cannot have.
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
        private: Mapping[str, int] | None = None,
        auxiliary: nn.Module | None = None,
    ) -> None:
        super().__init__()
        private = dict(private or {})
        require(
            not private or variational_posterior.per_latent,
            "private latents need a family with parameters for them (gaussian, laplace, softplus-laplace or -normal, "
            "student-t), and no flows",
        )
        require(
            not private or variational_strategy.per_latent,
            "private latents need a strategy that fuses each latent alone, which a set encoder's sum does not",
        )
        require(
            prior.is_standard or not variational_strategy.needs_standard_prior,
            "this posterior holds the prior N(0, I), not a learned or clustered one: leave out --learn-prior "
            "(in Python learn_prior, n_clusters); a run that had it must be trained anew",
        )
        self.latent_dim = prior().event_shape[-1]  # D; 1 where the prior broadcasts to any
        self.modality = modalities_of(encoder, decoder, weights or {}, private, self.latent_dim)
        self.modalities = tuple(self.modality)
        self.columns = {name: modality.columns for name, modality in self.modality.items()}
        self.n_columns = n_columns(self.columns)  # M
        self.weights = dict.fromkeys(self.modality, 1.0) | dict(weights or {})  # lambda
        self.modelled = tuple(name for name, modality in self.modality.items() if modality.decoder)
        self.private = tuple(modality for modality in self.modality.values() if modality.private_latents)
        self.n_shared = self.private[0].n_shared if self.private else None  # latents; None: all
        # by encoder: the modalities that it sees, and their number of elements or of experts if that is fixed
        self._seen = {key: (tuple(key.split(",")), n_elements(network)) for key, network in encoder.items()}
        joint = any(len(names) > 1 and n is None for names, n in self._seen.values())
        n_experts = sum(n or 1 for _, n in self._seen.values())
        require(
            variational_strategy.takes_joint_encoders or (not joint and n_experts == self.n_columns),
            f"this posterior fuses one expert for each modality (got encoders of {'; '.join(encoder)}): give each "
            "modality one encoder, or choose own, joint or jnf",
        )
        self.encoder = nn.ModuleDict(encoder)
        self.variational_strategy = variational_strategy
        self.variational_posterior = variational_posterior
        keys = (record.key for record in decoder_records(decoder))
        self.decoder = nn.ModuleDict(zip(keys, decoder.values(), strict=True))
        lacking = [name for name in self.modelled if name not in likelihood]
        require(not lacking, f"there is no likelihood for {', '.join(lacking)}, only for {', '.join(likelihood)}")
        self.likelihood = likelihood
        self.prior = prior
        self.auxiliary = auxiliary
        for p in self.parameters():
            if p.dim() == 4:  # convolutions with it are up to 1.6 times faster on the CPU
                p.data = p.data.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def networks(self) -> Iterator[nn.Module]:
        """The encoders and decoders."""
        yield from self.encoder.values()
        yield from self.decoder.values()

    def observe(self, inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Batch) -> Batch:
        """The inputs as a Batch of the model's modalities (`common.data.observe`).

        Raises:
            InputError: see there; values of a type or range that the likelihood has no density of, except in a Batch
                that somebody has looked at, `Batch.observed`; or a modality lacks some of its values, and a decoder of
                another one sees it.
        """
        batch = observe(inputs, self.columns)
        for modality in self.modality.values():
            for name in (name for name in modality.given if name in batch.observed):
                seen = f"{name} lacks some of its values, and the decoder of {modality.name} sees it"
                raise InputError(f"{seen}: mask {name} in these examples")
        if not isinstance(inputs, Batch) or inputs.observed is None:
            self.check_values(batch)
        return batch

    def check_values(self, batch: Batch) -> None:
        """Raise InputError for values of a type, dimensions or range that the likelihood has no density of."""
        dtype = next((p.dtype for p in self.parameters()), None)
        for name in (name for name in batch.modalities if name in self.likelihood):
            modality, x = self.modality[name], batch.modalities[name]
            present = None if batch.mask is None else modality.present(batch.mask)
            check_values(name, x, self.likelihood[name], modality.is_set, present, dtype)

    def scorable(self, mask: Tensor) -> Tensor:
        """Which modalities are present together with what their decoders see beside z: (B, M), from a mask (B, M)."""
        scorable = mask.clone()
        for modality in self.modality.values():
            for condition in modality.given:
                scorable[:, modality.columns.slice] &= mask[:, self.columns[condition].slice]
        return scorable

    def experts(self, batch: Batch) -> tuple[Tensor, ...]:
        """The stacked parameters of all experts, each (M, B, D), without meaning where a modality is absent.

        Raises:
            InputError: no encoder sees the batch's modalities, or encoders give no parameters, or of
                different shapes.
        """
        experts = {}
        for key, network in self.encoder.items():
            names, n = self._seen[key]
            given = [name in batch.modalities for name in names]
            if not (any(given) if n else all(given)):
                continue
            try:
                experts[key] = self._experts_of(network, names, n, batch)
            except (RuntimeError, ValueError, IndexError) as error:  # of torch, which speaks of matrices
                self._check_fit(batch)
                shapes = ", ".join(f"{name} {tuple(batch.modalities[name].shape)}" for name in names)
                error.add_note(f"in the encoder of {key}, which was given {shapes}")
                raise
        known = "; ".join(self.encoder)
        if not experts:
            named = ", ".join(batch.modalities)
            raise InputError(f"the model has no encoder for just {named}: it has those of {known}")
        like = next(iter(experts.values()))
        shapes = {key: [tuple(p.shape[1:]) for p in params] for key, params in experts.items()}
        if any(shape != [tuple(p.shape[1:]) for p in like] for shape in shapes.values()):
            raise InputError(f"encoders must give equally many parameters of equal shapes: {shapes}")
        absent = {key: n or 1 for key, (_, n) in self._seen.items() if key not in experts}
        experts |= {key: tuple(p.new_zeros(n, *p.shape[1:]) for p in like) for key, n in absent.items()}
        return tuple(torch.cat(p) for p in zip(*(experts[key] for key in self.encoder), strict=True))

    def _experts_of(
        self, network: nn.Module, names: tuple[str, ...], n: int | None, batch: Batch
    ) -> tuple[Tensor, ...]:
        """The parameters that one network gives, (1, B, D) each, for n elements (n, B, D)."""
        batches = [batch.modalities]
        if getattr(network, "takes_observed", False):
            batches.append({name: batch.observed_values(name) for name in batch.modalities})
        if n:
            xs = [
                x[names[0]] if len(names) == 1 else stack_values(names, x, batch.mask, self.modality) for x in batches
            ]
            params = tuple(p.movedim(1, 0) for p in expert_params(network, *xs))
        else:
            xs = [x[name] for x in batches for name in names]
            if batch.mask is None:
                params = expert_params(network, *xs)
            else:
                present = torch.stack([self.modality[name].present(batch.mask) for name in names]).all(dim=0)  # (B,)
                params = expert_params_where(present, network, *xs, every_row=batch.every_row)
            params = tuple(p.unsqueeze(0) for p in params)
        if not self.private:
            return params
        return tuple(self.modality[names[0]].spread(p, self.latent_dim) for p in params)

    def _check_fit(self, batch: Batch) -> None:
        """Raise InputError for bytes, and for values of another shape, or other classes, than a decoder gives."""
        for name, x in batch.modalities.items():
            is_bytes, takes = x.dtype in (torch.uint8, torch.bool), "which its encoder does not take: convert it with"
            require(not is_bytes, f"{name} is {x.dtype}, {takes} .float(), pixels of uint8 with / 255")
            p = self.decoded_once(name)
            if p is not None:
                check_shape(name, x, p, leading=1)
                check_class(name, x, p)

    def fuse(
        self, params: tuple[Tensor, ...], mask: Tensor | None = None, encoded: Tensor | None = None
    ) -> LatentDistribution:
        """q(z|x_S) from stacked experts (M, B, D): batch shape (..., B).

        Args:
            mask: the experts that are fused, (..., B, M).
            encoded: the modalities whose private latents come from their encoders, (..., B, M); default: `mask`.
        """
        return self.variational_posterior(self._fused(params, mask, encoded))

    def training_posterior(self, params: tuple[Tensor, ...], mask: Tensor | None = None) -> LatentDistribution:
        """What importance-weighted objectives draw from, q(z|x_S); MMVAE+'s has `auxiliary` priors (`with_auxiliary`).

        Args:
            params: the experts' parameters, each (M, B, D); mask: (B, M).
        """
        if self.auxiliary is None:
            return self.fuse(params, mask)
        fused = self._fused_shared(params, mask)
        for modality in self.private:
            encoded = self._private_params(modality, params, self.auxiliary)
            fused = with_auxiliary(fused, *encoded, modality.columns.start)
        return self.variational_posterior(fused)

    def _fused(
        self, params: tuple[Tensor, ...], mask: Tensor | None, encoded: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The posterior's parameters, private latents included, each (..., B, D), for a mixture (..., B, T, D).

        Raises:
            InputError: the encoders give another number of latents than the prior.
        """
        fused, encoded = self._fused_shared(params, mask), mask if encoded is None else encoded
        for modality in self.private:
            present = None if encoded is None else modality.present(encoded)
            fused = with_private(fused, *self._private_params(modality, params, self.prior), present)
        given, latents = fused[-1].shape[-1], self.latent_dim
        if latents not in (1, given):
            raise InputError(f"the encoders give {given} latents and the prior {latents}: make them equal")
        return fused

    def _fused_shared(self, params: tuple[Tensor, ...], mask: Tensor | None) -> tuple[Tensor, ...]:
        """The parameters of q(u|x_S) of the shared latents u; without any modality the prior's.

        A clustered prior, and that of laplace-normal experts, has no such parameters: an example without any modality
        gets the member of the posterior's family with the numbers of the prior's, which is another distribution.
        """
        fused = self.variational_strategy(tuple(p[..., : self.n_shared] for p in params), mask)
        if mask is None or self.prior.is_standard:
            return fused
        *logits, loc, scale = fused
        absent = ~mask.any(dim=-1, keepdim=True)  # (..., B, 1)
        absent = absent.unsqueeze(-1) if logits else absent
        of_prior = (p[: self.n_shared] for p in self.prior.params)
        return *logits, *(torch.where(absent, p, q) for p, q in zip(of_prior, (loc, scale), strict=True))

    @staticmethod
    def _private_params(
        modality: Modality, params: tuple[Tensor, ...], prior: nn.Module
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The encoder's parameters of a modality's d private latents, each (B, d), and a prior's, each (d,)."""
        latents, expert = slice(modality.private_latents.start, modality.private_latents.stop), modality.columns.start
        return tuple(p[expert, :, latents] for p in params), tuple(p[latents] for p in prior.params)

    def posterior(self, inputs: Mapping[str, Tensor] | Batch, given: Sequence[str] | None = None) -> LatentDistribution:
        """The q(z|x_S) to generate from, S the modalities that each example has among the given ones (default: all).

        It is that of `fuse`, except that a mixture of products generates from the product over S (`MopoeStrategy`).

        Args:
            inputs: {name: (B, ...)}; absent modalities are left out (`common.data.observe`).
            given: () is the prior.

        Returns:
            a distribution of batch shape (B,) and event shape (D,).
        """
        batch = self.observe(inputs)
        if given is not None and len(given) == 0:
            return self.prior().expand((len(batch),))
        if given is not None:
            batch = batch.only(given, self.columns)
        fused = self._fused(self.experts(batch), batch.mask)
        return self.variational_posterior(self.variational_strategy.conditional(fused, batch.mask))

    def decode(
        self,
        z: Tensor | Mapping[str, Tensor],
        modalities: Sequence[str] | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Distribution]:
        """{name: p(x_m|z)} for z (..., D), batch shapes (...), for the named modalities, by default all.

        Args:
            z: the latents; {name: (..., D)} decodes each modality from its own.
            given: {name: (B, ...)} for z (..., B, D), the values that decoders of p(x_m|z, x_l) see.

        Raises:
            InputError: a modality that the model never models, or a value that a decoder needs and that is not given.
        """
        require_names(modalities)
        names = self.modelled if modalities is None else modalities
        return self.likelihood(self.decoder_outputs(z, names, given))

    def decoder_outputs(
        self, z: Tensor | Mapping[str, Tensor], names: Sequence[str], given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """What the decoders of the named modalities give, {name: (..., *output)}, for z (..., D); see `decode`."""
        if isinstance(z, Mapping):
            return {name: self.decoder_outputs(z[name], (name,), given)[name] for name in names}
        decoded, given, latents = {}, given or {}, z.shape[-1] if z.dim() else 0
        require(
            self.latent_dim in (1, latents), f"z has {latents} latents, the model {self.latent_dim}: make them equal"
        )
        for name in names:
            if name not in decoded:
                decoded |= self._decode_together(z, self._decoder_of(name, given), given)
        return {name: decoded[name] for name in names}

    def _decoder_of(self, name: str, given: Mapping[str, Tensor]) -> DecoderRecord:
        if name not in self.modelled:
            raise InputError(f"the model has no p({name}|z): it models {', '.join(self.modelled)}")
        record = self.modality[name].decoder
        for condition in record.given:
            require(condition in given, f"the model has p({name}|z, {condition}): give it the {condition}")
        return record

    def _decode_together(self, z: Tensor, decoder: DecoderRecord, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs (..., *) of a decoder, by name of the modalities that it decodes."""
        conditions = [given[name] for name in decoder.given]
        if self.private:
            z = self.modality[decoder.models[0]].part_of(z)
        shape = torch.broadcast_shapes(z.shape[:-1], *(x.shape[:1] for x in conditions))
        inputs = [z.expand(*shape, -1), *(x.expand(*shape, *x.shape[1:]) for x in conditions)]
        flat = outputs(self.decoder[decoder.key], *(x.reshape(-1, *x.shape[len(shape) :]) for x in inputs))
        if len(decoder.models) == 1:
            flat = [flat]
        elif isinstance(flat, Tensor):
            flat = flat.unbind(1)
        return {n: x.reshape(*shape, *x.shape[1:]) for n, x in zip(decoder.models, flat, strict=True)}

    @torch.no_grad()
    def decoded_once(self, name: str) -> Distribution | None:
        """p(x_m|z) for one z, batch shape (1,), or (1, n) for a set; None where there is none without a condition."""
        if name not in self.modelled or self.modality[name].given:
            return None
        # compiling for one row would take long and slow down other rows; the import that says so takes seconds, and
        # without it nothing has been compiled
        stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
        with evaluation_mode(self), stance:  # batch norm refuses a batch of one in training
            return self.decode(next(self.parameters()).new_zeros(1, self.latent_dim), (name,))[name]

    @torch.no_grad()
    def generate(self, n: int, latents: Distribution | None = None) -> dict[str, Tensor]:
        """Means or modes of all modalities for n draws of z from the prior, or from another distribution of it."""
        return self.likelihood.point(self.decode(self.draw_latents(n, latents)))

    def draw_latents(self, n: int, latents: Distribution | None = None) -> Tensor | dict[str, Tensor]:
        """n draws of z from the prior, or from another distribution of it, (n, D).

        A distribution of event shape (M, D) draws {name: (n, D)}, each modality's own latents, for `decode`.
        """
        return self.placed(latents.sample((n,))) if latents else self.prior().sample((n,))

    def placed(self, z: Tensor) -> Tensor | dict[str, Tensor]:
        """Draws of z where latents lie, such as on spheres: (n, D); of (n, M, D) {name: (n, D)}."""
        z = self.prior().project(z)
        return z if z.dim() == 2 else dict(zip(self.modalities, z.unbind(dim=1), strict=True))

    @torch.no_grad()
    def reconstruct(self, inputs: Mapping[str, Tensor], given: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Means or modes of all modalities at the posterior's point, given some modalities (by default all inputs).

        Raises:
            InputError: an empty `given`: `generate` gives samples of the prior.
        """
        batch = self.observe(inputs)
        if given is not None:
            batch = batch.only(given, self.columns)
        return self.likelihood.point(self.decode(self.posterior(batch).point, given=batch.modalities))
