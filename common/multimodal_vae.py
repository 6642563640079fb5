"""The one model class: six pieces and the names of its modalities."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.data import Batch, columns_of, observe
from common.encoders_decoders import NetworkList, StackedDecoder, has_batch_norm
from common.errors import require
from common.likelihoods import GroupedLikelihood

PIECES = ("encoder", "variational_strategy", "variational_posterior", "decoder", "likelihood", "prior")
# Samples of z decoded at once, of all examples together, so that memory does not grow with their number: few enough
# for a CPU's cache to hold the activations, enough to keep a GPU busy.
DECODED_AT_ONCE = {"cpu": 500, "cuda": 20_000}


class MultimodalVAE(nn.Module):
    """A VAE over named modalities, p(z) prod_m p(x_m|z), with a posterior for every subset of them.

    Args:
        encoder: {name: network}, x_m (N, ...) -> parameters of its expert, a tuple of (N, D). A network on several
            modalities, x_1, x_2 -> parameters, has their names joined by commas. One with `n_elements` = n
            (`common.encoders_decoders.SharedNetwork`) makes a modality of a set of n like ones, each with its own
            expert and free to be absent: x (N, n, ...) -> parameters (N, n, D). Its decoder gives (N, n, ...). With
            n names it is of n like modalities, whose values it gets as (N, n, ...) too.
        variational_strategy: fuses the experts' parameters, (M, B, D): one an encoder, of a set one an element.
        variational_posterior: parameters -> q(z|x_S).
        decoder: {name: network}, z (N, D) -> parameters of p(x_m|z), (N, ...). A network z, x_l -> parameters of
            p(x_m|z, x_l) has the name "m|l"; one of several modalities, z -> a tuple of (N, ...) or one (N, M, ...),
            has their names joined by commas. Modalities of a `StackedDecoder` have likelihoods of one kind. A modality
            without a decoder is given and never modelled.
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
        self.modalities = tuple(dict.fromkeys(name for key in encoder for name in key.split(",")))
        self.encoder = nn.ModuleDict(encoder)
        self.columns = columns_of({name: n_elements(encoder.get(name)) for name in self.modalities})
        self.variational_strategy = variational_strategy
        self.variational_posterior = variational_posterior
        self.decoder, self.modelled, self.conditions = nn.ModuleDict(), {}, {}
        for key, network in decoder.items():
            names, *conditions = key.split("|")
            self.decoder[names] = network
            for name in names.split(","):
                self.modelled[name], self.conditions[name] = names, tuple(conditions)  # by name, its decoder's key
        self.likelihood = likelihood
        self.prior = prior
        self.weights = dict.fromkeys(self.modalities, 1.0) | dict(weights or {})
        self.bf16 = False
        self.decoded_at_most: int | None = None  # where memory is short (`common.devices.limit_memory`)
        self.every_row = False  # run networks on absent modalities too, in vain: the same operations for every mask
        for p in self.parameters():
            if p.dim() == 4:  # convolutions with it are up to 1.6 times faster on the CPU
                p.data = p.data.to(memory_format=torch.channels_last)

    @property
    def decoded_at_once(self) -> int:
        """How many samples of z to decode in one batch where there are many."""
        usual = DECODED_AT_ONCE[next(self.parameters()).device.type]
        return usual if self.decoded_at_most is None else min(usual, self.decoded_at_most)

    def observe(self, inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Batch) -> Batch:
        """What a caller gives as a Batch of the model's modalities (`common.data.observe`)."""
        return observe(inputs, self.columns)

    def experts(self, batch: Batch) -> tuple[Tensor, ...]:
        """The stacked parameters of all experts, each (M, B, D); of no meaning where a modality is absent."""
        experts = {}
        for key, network in self.encoder.items():
            names = key.split(",")
            there = [name in batch.modalities for name in names]
            if any(there) if n_elements(network) else all(there):
                experts[key] = self._experts_of(network, names, batch)
        require(bool(experts), "the model has no encoder for just these modalities")
        some = next(iter(experts.values()))
        for key, network in self.encoder.items():
            if key not in experts:
                experts[key] = tuple(p.new_zeros(n_elements(network) or 1, *p.shape[1:]) for p in some)
        return tuple(torch.cat(p) for p in zip(*(experts[key] for key in self.encoder), strict=True))

    def _experts_of(self, network: nn.Module, names: Sequence[str], batch: Batch) -> tuple[Tensor, ...]:
        """What one network says, (1, B, D) each, of a set of elements (n, B, D)."""
        if n_elements(network):
            x = batch.modalities[names[0]] if len(names) == 1 else self.side_by_side(names, batch)
            return tuple(p.movedim(1, 0) for p in self._run(network, x))
        xs = [batch.modalities[name] for name in names]
        if batch.mask is None:
            return tuple(p.unsqueeze(0) for p in self._run(network, *xs))
        present = torch.stack([batch.mask[:, self.columns[name]] for name in names]).all(dim=0)
        if self.every_row:
            params = self._run(network, *(zero_where_absent(x, present) for x in xs))
            return tuple(torch.where(present[:, None], p, 0).unsqueeze(0) for p in params)
        if present.all():
            return tuple(p.unsqueeze(0) for p in self._run(network, *xs))
        rows = present.nonzero().squeeze(1)
        params = self._run(network, *(x[rows] for x in xs))
        return tuple(p.new_zeros(1, len(batch), *p.shape[1:]).index_copy(1, rows, p.unsqueeze(0)) for p in params)

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
        batch = self.observe(inputs)
        if given is not None and len(given) == 0:
            return self.prior().expand((len(batch),))
        if given is not None:
            batch = batch.only(given, self.columns)
        return self.fuse(self.experts(batch), batch.mask)

    def decode(
        self, z: Tensor, modalities: Sequence[str] | None = None, given: Mapping[str, Tensor] | None = None
    ) -> dict[str, Distribution]:
        """{name: p(x_m|z)} for z (..., D), batch shapes (...): of the named modalities, all by default.

        Args:
            given: {name: (B, ...)} for z (..., B, D), what decoders of p(x_m|z, x_l) look at.
        """
        outputs = {}
        modalities = tuple(self.modelled if modalities is None else modalities)
        for name in modalities:
            if name in outputs:
                continue
            require(name in self.modelled, f"the model has no p({name}|z): it never models the {name}")
            for condition in self.conditions[name]:
                require(condition in (given or {}), f"the model has p({name}|z, {condition}): give it the {condition}")
            conditions = [given[condition] for condition in self.conditions[name]]
            shape = torch.broadcast_shapes(z.shape[:-1], *(x.shape[:1] for x in conditions))
            inputs = [z.expand(*shape, -1), *(x.expand(*shape, *x.shape[1:]) for x in conditions)]
            network, joint = self.decoder[self.modelled[name]], self.modelled[name].split(",")
            flat = self._run(network, *(x.reshape(-1, *x.shape[len(shape) :]) for x in inputs))
            of_each = [flat] if len(joint) == 1 else flat.unbind(1) if isinstance(flat, Tensor) else flat
            outputs |= {n: x.reshape(*shape, *x.shape[1:]) for n, x in zip(joint, of_each, strict=True)}
        return self.likelihood({name: outputs[name] for name in modalities})

    def has_batch_norm(self, name: str) -> bool:
        """Whether the decoder of a modality has batch norm, whose statistics are to be those of one term."""
        return has_batch_norm(self.decoder[self.modelled[name]])

    def alike(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The modelled ones of these modalities; those of one StackedDecoder, all of them, together."""
        keys = [self.modelled[name] for name in names if name in self.modelled]
        stacked = {key for key in keys if isinstance(self.decoder[key], StackedDecoder)}
        groups = {tuple(key.split(",")) if key in stacked else (name,): None for name, key in self.modelled.items()}
        return [group for group in groups if any(name in names for name in group)]

    def decode_alike(self, names: Sequence[str], z: Tensor) -> Distribution:
        """p(x_m|z_m) of all n modalities of a StackedDecoder, each with its own z, (n, ..., D): of shape (n, ...)."""
        out = self._run(self.decoder[",".join(names)], z.flatten(1, -2)).movedim(1, 0)  # (n, N, ...)
        return self.likelihood[names[0]](out.reshape(*z.shape[:-1], *out.shape[2:]))

    def side_by_side(self, names: Sequence[str], batch: Batch) -> Tensor:
        """The values of like modalities, (B, n, ...), with zeros where one is absent."""
        some = next(batch.modalities[name] for name in names if name in batch.modalities)
        xs = []
        for name in names:
            x = batch.modalities.get(name, torch.zeros_like(some))
            absent = name in batch.modalities and batch.mask is not None
            xs.append(zero_where_absent(x, batch.mask[:, self.columns[name]]) if absent else x)
        return torch.stack(xs, dim=1)

    def _run(self, network: nn.Module, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Only networks run in reduced precision: densities, products and sums stay in float32.

        A row by itself has no statistics for batch norm: in training too, those so far stand for them.
        """
        if self.training and len(inputs[0]) == 1 and network.training and has_batch_norm(network):
            network.eval()
            out = self._run(network, *inputs)
            network.train()
            return out
        if not self.bf16:
            return network(*inputs)
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            out = network(*inputs)
        return out.float() if isinstance(out, Tensor) else tuple(o.float() for o in out)

    @torch.no_grad()
    def generate(self, n: int) -> dict[str, Tensor]:
        """Means or modes of all modalities for n draws of z from the prior."""
        return self.likelihood.point(self.decode(self.prior().sample((n,))))

    @torch.no_grad()
    def reconstruct(self, inputs: Mapping[str, Tensor], given: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Means or modes of all modalities at the posterior's point, given some modalities (all of the inputs)."""
        batch = self.observe(inputs)
        if given is not None:
            batch = batch.only(given, self.columns)
        z = self.variational_posterior.point(self.posterior(batch))
        return self.likelihood.point(self.decode(z, given=batch.modalities))


def assembled(pieces: nn.ModuleDict) -> MultimodalVAE:
    """The model of six pieces in a plain ModuleDict, as poe-vae's README has it; its modalities are "0", "1", ...

    Args:
        pieces: encoder (a NetworkList, or a network of a set of elements, which is modality "0"), variational_strategy,
            variational_posterior, decoder (a NetworkList, or one network of all modalities), likelihood, prior.
    """
    lacking = [name for name in PIECES if name not in pieces]
    require(not lacking, f"a VAE is made of {', '.join(PIECES)}: this one lacks {', '.join(lacking)}")
    encoder, decoder, likelihood = (pieces[name] for name in ("encoder", "decoder", "likelihood"))
    encoders = list(encoder.networks) if isinstance(encoder, NetworkList) else [encoder]
    names = [str(i) for i in range(len(encoders))]
    of_each = dict(zip(names, decoder.networks, strict=True)) if isinstance(decoder, NetworkList) else None
    return MultimodalVAE(
        encoder=dict(zip(names, encoders, strict=True)),
        decoder=of_each or {",".join(names): decoder},
        likelihood=likelihood if isinstance(likelihood, GroupedLikelihood) else GroupedLikelihood(likelihood),
        **{name: pieces[name] for name in ("variational_strategy", "variational_posterior", "prior")},
    )


def n_elements(encoder: nn.Module | None) -> int | None:
    """Of how many like elements an encoder's modality is a set; None for one that is none."""
    return getattr(encoder, "n_elements", None)


def zero_where_absent(x: Tensor, present: Tensor) -> Tensor:
    """x (B, ...) with zeros, a valid value of every modality, in the rows that are not present, (B,)."""
    return x.masked_fill(~present.view(-1, *[1] * (x.dim() - 1)), 0)
