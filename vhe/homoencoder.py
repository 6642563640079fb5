"""The Variational Homoencoder (Hewitt, Nye, Gane, Jaakkola & Tenenbaum 2018, arXiv 1807.08919)."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.bounds import Bound
from common.errors import InputError, require
from vhe.factors import Factor, Modules, descendants, in_order, named


class Result(NamedTuple):
    """What a module may return instead of a pair (value, log_prob).

    value: of its variable, (B, ...); log q or log p of it is the sum of what is given of the two others, each (B,).
    reparam_log_prob: of what is a differentiable function of the parameters, or is not learned through samples.
    reinforce_log_prob: of what is not, such as a discrete choice: its gradient is estimated by REINFORCE.
    """

    value: Tensor
    reparam_log_prob: Tensor | None = None
    reinforce_log_prob: Tensor | None = None

    @property
    def log_prob(self) -> Tensor:
        first, *more = (x for x in (self.reparam_log_prob, self.reinforce_log_prob) if x is not None)
        return sum(more, first)


class StandardNormal(nn.Module):
    """N(0, I) of a variable (B, *shape). Without a shape it takes that of the first value it scores."""

    def __init__(self, variable: str, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.variable, self.shape = variable, shape
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def get_extra_state(self) -> Tensor | None:
        return None if self.shape is None else torch.empty(0, *self.shape)

    def set_extra_state(self, state: Tensor | None) -> None:
        self.shape = None if state is None else tuple(state.shape[1:])

    def forward(self, batch_size: int | None = None, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if value is None:
            require(self.shape is not None, f"the size of {self.variable} is not known before the first score")
            value = torch.randn(batch_size, *self.shape, dtype=self.zero.dtype, device=self.zero.device)
        self.shape = tuple(value.shape[1:])
        squares = value.reshape(len(value), -1).square().sum(dim=1)
        return value, -0.5 * (squares + math.log(2 * math.pi) * math.prod(self.shape))


class VHE(nn.Module):
    """A generative model of examples in groups, whose latent variables are shared by the examples of a group.

    Each distribution is a module whose forward takes the variables that it depends on, and its own as the last
    argument, with None as its default: given, it is scored, else drawn. It returns the value (B, ...) and its
    log-probability (B,), or a `Result`. An encoder's first argument is a batch of support sets (B, k, ...); a prior
    that depends on nothing is told how many to draw if it has an argument `batch_size`.

    Args:
        encoder: q(v|D_v, ...) of each latent variable: a module, a list, or a dict by variable.
        decoder: p(x|latent variables).
        prior: p(v|...) of some latent variables, as the encoder; N(0, I) of the others.

    Raises:
        InputError: a module's arguments name no variable of the model, or they depend on each other in a circle.
    """

    bf16 = False  # run the modules under autocast; they return densities in float32

    def __init__(self, encoder: Modules, decoder: nn.Module, prior: Modules | None = None) -> None:
        super().__init__()
        self.encoder, self.encoders = named(encoder, takes_inputs=True)
        self.latents = in_order(self.encoders, "encoder")
        self.prior, self.priors = named(prior or [], takes_inputs=False)
        unknown = [name for name in self.priors if name not in self.encoders]
        require(not unknown, f"{', '.join(unknown)} has a prior but no encoder")
        for name in self.latents:
            if name not in self.prior:
                self.prior[name] = StandardNormal(name)
                self.priors[name] = Factor(name, "value", (), True)
        in_order(self.priors, "prior")
        (self.likelihood,) = named([decoder], takes_inputs=False)[1].values()
        self.decoder = decoder
        in_order({**self.encoders, self.observed: self.likelihood}, "decoder")
        self.below = descendants(self.encoders, self.latents)

    @property
    def observed(self) -> str:
        """The name of what the decoder generates."""
        return self.likelihood.variable

    def score(
        self,
        inputs: Mapping[str, Tensor],
        sizes: Mapping[str, Tensor],
        return_kl: bool = False,
        kl_factor: float | Mapping[str, float] = 1.0,
        **observed: Tensor,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The bound of `bound`, averaged over the batch, to maximise; with return_kl also each KL's mean, whole."""
        value, terms = self.bound(inputs, sizes, kl_factor, **observed)
        if return_kl:
            return value.mean(), {name: terms[f"kl {name}"].mean() for name in self.latents}
        return value.mean()

    def bound(
        self,
        inputs: Mapping[str, Tensor],
        sizes: Mapping[str, Tensor],
        kl_factor: float | Mapping[str, float] = 1.0,
        **observed: Tensor,
    ) -> Bound:
        """One-sample estimates of the examples' parts in the bound (Algorithm 1).

            log p(x|z, c, ...) - sum_v 1/|X_v| [log q(v|D_v, ...) - log p(v|...)],     v ~ q(v|D_v, ...)

        Its expectation over examples x of the data, and support sets D_v of the groups X_v that they are in, is 1/N of
        a lower bound of log p(all data). Gradients of latent variables with a `reinforce_log_prob` are REINFORCE's: of
        all terms that such a variable has a part in, less the mean of the batch's other examples.

        Args:
            inputs: {latent: support sets (B, k, ...)}.
            sizes: {latent: sizes of the groups |X_v| (B,)}.
            kl_factor: of all KLs, or {latent: factor}, 1 by default.
            observed: the decoder's variable, (B, ...), by its name.

        Returns:
            the bound (B,) with the terms "log p(x)" and "kl v", which is not divided by the group's size; nats.

        Raises:
            InputError: a name is missing or unknown, or sizes, support sets or log-probabilities are not B.
        """
        self._check_names("inputs", inputs, self.latents)
        self._check_names("sizes", sizes, self.latents)
        self._check_names("observed variables", observed, (self.observed,))
        factors = kl_factor if isinstance(kl_factor, Mapping) else dict.fromkeys(self.latents, kl_factor)
        unknown = [name for name in factors if name not in self.latents]
        require(
            not unknown, f"kl_factor names {', '.join(unknown)}: the latent variables are {', '.join(self.latents)}"
        )
        n = len(observed[self.observed])
        for name in self.latents:
            d, shape = inputs[name], tuple(getattr(sizes[name], "shape", ()))
            require(len(d) == n, f"there are {len(d)} support sets of {name} and {n} examples")
            require(shape in ((), (n,)), f"the sizes of {name} are {shape}: they should be {(n,)}, one an example")
        with self._autocast(observed[self.observed]):
            values, q = self._encode(inputs)
            prior = {
                name: self.call(self.prior[name], self.priors[name], values, values[name]) for name in self.latents
            }
            log_p = self.call(self.decoder, self.likelihood, values, observed[self.observed]).log_prob
        kl = {v: q[v].log_prob - prior[v].log_prob for v in self.latents}
        weighted = {v: kl[v] / sizes[v] for v in self.latents}
        weighted |= {v: factor * weighted[v] for v, factor in factors.items() if factor != 1}
        bound = log_p
        for x in weighted.values():
            bound = bound - x
        for name, result in q.items():
            if result.reinforce_log_prob is not None:
                reward = self._reward(name, log_p, weighted).detach()
                others = (reward.sum() - reward) / max(len(reward) - 1, 1)
                score = result.reinforce_log_prob
                bound = bound + (reward - others) * (score - score.detach())
        return Bound(bound, {f"log p({self.observed})": log_p, **{f"kl {name}": x for name, x in kl.items()}})

    def sample(self, inputs: Mapping[str, Tensor] | None = None, batch_size: int | None = None) -> dict[str, Tensor]:
        """Draw every variable: the latent ones in `inputs` from their encoders, the others from their priors.

        Args:
            inputs: {latent: support sets (B, k, ...)}.
            batch_size: B, where there are no inputs.

        Returns:
            {variable: (B, ...)}, the decoder's too.

        Raises:
            InputError: neither is given, a name is unknown, a default prior has never scored, or a prior that
                depends on nothing does not take `batch_size`.
        """
        inputs = inputs or {}
        unknown = [name for name in inputs if name not in self.latents]
        require(not unknown, f"inputs for {', '.join(unknown)}: the latent variables are {', '.join(self.latents)}")
        sizes = {len(x) for x in inputs.values()} | ({batch_size} - {None})
        require(len(sizes) == 1, "give inputs of one batch size, or a batch_size" + (f", not {sizes}" if sizes else ""))
        (n,) = sizes
        require(n > 0, f"the batch size must be positive, not {n}")
        factors = self.priors | {name: self.encoders[name] for name in inputs}
        values: dict[str, Tensor] = {}
        with self._autocast(next(iter(inputs.values()), None)):
            for name in in_order(factors, "chosen distribution"):
                module = self.encoder[name] if name in inputs else self.prior[name]
                values[name] = self.call(module, factors[name], values, None, inputs.get(name), n).value
            return values | {self.observed: self.call(self.decoder, self.likelihood, values, None, n=n).value}

    def call(
        self,
        module: nn.Module,
        factor: Factor,
        values: Mapping[str, Tensor],
        value: Tensor | None,
        inputs: Tensor | None = None,
        n: int | None = None,
    ) -> Result:
        """A factor's distribution given the values of others: `value` scored, or n drawn where it is None."""
        arguments = {name: values[name] for name in factor.given} | {factor.argument: value}
        if factor.counts:
            arguments["batch_size"] = n
        elif value is None and inputs is None:
            require(factor.given, f"{type(module).__name__} depends on nothing: to draw {factor.variable} from it, its "
                    "forward needs an argument batch_size")  # fmt: skip
        result = module(*(() if inputs is None else (inputs,)), **arguments)
        result = result if isinstance(result, Result) else Result(*result)
        shape, value = tuple(result.log_prob.shape), tuple(result.value.shape)
        if shape != value[:1]:
            raise InputError(
                f"{type(module).__name__} gives log-probabilities {shape} of {factor.variable} {value}: they should be "
                f"{value[:1]}, one an example"
            )
        return result

    def _encode(self, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Result]]:
        values: dict[str, Tensor] = {}
        results = {}
        for name in self.latents:
            results[name] = self.call(self.encoder[name], self.encoders[name], values, None, inputs[name])
            values[name] = results[name].value
        return values, results

    def _reward(self, name: str, log_p: Tensor, weighted: Mapping[str, Tensor]) -> Tensor:
        """The terms, (B,), that a latent variable has a part in, directly or through others drawn given it."""
        below = self.below[name]
        terms = [-kl for v, kl in weighted.items() if below & {v, *self.encoders[v].given, *self.priors[v].given}]
        return sum(terms, log_p if below & set(self.likelihood.given) else torch.zeros_like(log_p))

    def _autocast(self, x: Tensor | None) -> AbstractContextManager:
        if not self.bf16:
            return nullcontext()
        device = next((p.device for p in self.parameters()), torch.device("cpu")) if x is None else x.device
        return torch.autocast(device.type, torch.bfloat16)

    @staticmethod
    def _check_names(what: str, given: Mapping[str, object], names: tuple[str, ...]) -> None:
        got = ", ".join(given) or "nothing"
        require(set(given) == set(names), f"{what} are given for {got}: needed for {', '.join(names)}")
