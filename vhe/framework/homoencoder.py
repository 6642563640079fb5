"""The Variational Homoencoder (Hewitt, Nye, Gane, Jaakkola & Tenenbaum 2018, arXiv 1807.08919)."""

from collections.abc import Iterable, Iterator, Mapping

from common.data.records import Record
from common.errors import require
from common.objectives import Bound
from vhe.framework.distributions import NormalPrior, Result, evaluate
from vhe.framework.factors import Factors, Modules, descendants, topological_order

import torch
from torch import Tensor, nn


class VHE(nn.Module):
    """A generative model of grouped examples, in which the examples of a group share latent variables.

    Each distribution is a module. Its `forward` takes the variables that it depends on, by their names, and then its
    own variable, with the default None. It scores the value of its variable if that is given and draws one otherwise,
    and returns the value (B, ...) and its log-probability (B,), or a `Result`. The first argument of an encoder is a
    batch of support sets (B, k, ...), or B lists of k objects if the data are not a tensor. A prior that depends on
    nothing may take a `batch_size`, the number of values to draw; one that does not draws a single value, (1, ...).

    Args:
        encoder: q(v|D_v, ...) of each latent variable v: a module, a list of modules, a dict by variable, or
            `Factors`.
        decoder: p(x|latent variables).
        prior: p(v|...) of latent variables, in the same forms; N(0, I) for those without one.

    Raises:
        InputError: an argument of a module is not a variable of the model, or modules depend on each other in a circle.
    """

    def __init__(self, encoder: Modules, decoder: nn.Module, prior: Modules | None = None) -> None:
        super().__init__()
        self.encoder, self.prior = Factors(encoder), Factors(prior or [])
        self.encoders = self.encoder.signatures(takes_inputs=True)
        self.latents = topological_order(self.encoders, "encoder")
        unknown = [name for name in self.prior if name not in self.encoder]
        require(not unknown, f"{', '.join(unknown)} has a prior but no encoder: give both, or neither")
        for name in self.latents:
            if name not in self.prior:
                self.prior[name] = NormalPrior(name)
        self.priors = self.prior.signatures(takes_inputs=False)
        topological_order(self.priors, "prior")
        (self.likelihood,) = Factors([decoder]).signatures(takes_inputs=False).values()
        self.decoder = decoder
        topological_order({**self.encoders, self.observed: self.likelihood}, "decoder")
        self.descendants = descendants(self.encoders, self.latents)

    def networks(self) -> Iterator[nn.Module]:
        """Yield the modules that have parameters: encoders, priors and the decoder."""
        for module in (*self.encoder.values(), *self.prior.values(), self.decoder):
            if next(module.parameters(), None) is not None:
                yield module

    @property
    def observed(self) -> str:
        """The name of the variable that the decoder generates."""
        return self.likelihood.variable

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU if there are none."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def q(self, latent: str, inputs: Tensor, values: Mapping[str, Tensor], value: Tensor | None = None) -> Result:
        """Draw a latent variable from its encoder q(v|D_v, ...), or score its value.

        Args:
            latent: the name of the variable v.
            inputs: its support sets D_v (B, k, ...).
            values: the values (B, ...) of the variables that it depends on, by name; others are ignored.
            value: (B, ...) to score it; None to draw it.
        """
        return evaluate(self.encoder[latent], self.encoders[latent], values, value, (inputs,), len(inputs))

    def p(
        self, variable: str, values: Mapping[str, Tensor], value: Tensor | None = None, n: int | None = None
    ) -> Result:
        """Draw a variable from its prior p(v|...), or x from the decoder p(x|...); or score its value.

        Args:
            variable: its name.
            values: the values (B, ...) of the variables that it depends on, by name; others are ignored.
            value: (B, ...) to score it; None to draw it.
            n: the number of values to draw, B, of a variable that depends on nothing.

        Raises:
            InputError: see `evaluate`.
        """
        if variable == self.observed:
            return evaluate(self.decoder, self.likelihood, values, value, n=n)
        return evaluate(self.prior[variable], self.priors[variable], values, value, n=n)

    def encode(
        self, inputs: Mapping[str, Tensor], values: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Result]]:
        """Draw the latent variables that have support sets; score those whose values are known.

        Args:
            inputs: {latent: support sets (B, k, ...)}.
            values: {latent: (B, ...)}, the known values.

        Returns:
            all values, {latent: (B, ...)}; and the result, with log q, of each latent variable with support sets.
        """
        values, results = dict(values or {}), {}
        for name in self.latents:
            if name in inputs:
                results[name] = self.q(name, inputs[name], values, values.get(name))
                values[name] = results[name].value
        return values, results

    def score(
        self,
        inputs: Mapping[str, Tensor],
        sizes: Mapping[str, Tensor],
        return_kl: bool = False,
        kl_factor: float | Mapping[str, float] = 1.0,
        **observed: Tensor,
    ) -> Tensor | tuple[Tensor, Record]:
        """Return the mean of `bound` over the batch, which training maximises, in nats.

        With return_kl also the mean KL of each latent variable, not divided by the size of its group: kl.c, or kl["c"].
        """
        value, terms = self.bound(inputs, sizes, kl_factor, **observed)
        if return_kl:
            return value.mean(), Record({name: terms[f"kl {name}"].mean() for name in self.latents})
        return value.mean()

    def bound(
        self,
        inputs: Mapping[str, Tensor],
        sizes: Mapping[str, Tensor],
        kl_factor: float | Mapping[str, float] = 1.0,
        **observed: Tensor,
    ) -> Bound:
        """Estimate each example's part of the bound with one sample (Algorithm 1).

            log p(x|z, c, ...) - sum_v 1/|X_v| [log q(v|D_v, ...) - log p(v|...)],     v ~ q(v|D_v, ...)

        The expectation over the examples x of the data, and over support sets D_v of the groups X_v that hold x, is 1/N
        of a lower bound of log p(all data). A latent variable with a `reinforce_log_prob` gets the gradient of
        REINFORCE. Its reward is the sum of the terms that depend on the variable; the baseline is the mean reward of
        the other examples of the batch.

        Args:
            inputs: {latent: support sets (B, k, ...)}.
            sizes: {latent: sizes of the groups |X_v|, (B,)}.
            kl_factor: a factor of all KLs, or {latent: factor}, 1 for latent variables that it does not name.
            observed: the value (B, ...) of the decoder's variable, by its name.

        Returns:
            the bound (B,) and its terms (B,): "log p(x)", and "kl v" for each latent variable v, not divided by the
            size of the group; nats.

        Raises:
            InputError: a name is missing or unknown, or inputs, sizes or log-probabilities do not have B rows.
        """
        self._check_batch(inputs, sizes, observed)
        if isinstance(kl_factor, Mapping):
            self._check_known("kl_factor", kl_factor)
        factors = kl_factor if isinstance(kl_factor, Mapping) else dict.fromkeys(self.latents, kl_factor)
        values, posteriors = self.encode(inputs)
        priors = {v: self.p(v, values, values[v]) for v in self.latents}
        log_p = self.p(self.observed, values, observed[self.observed]).log_prob
        kl = {v: posteriors[v].log_prob - priors[v].log_prob for v in self.latents}
        # examples that are not tensors have no device, and their groups' sizes are on the CPU
        per_example = {v: kl[v] / torch.as_tensor(sizes[v], device=kl[v].device) for v in self.latents}
        weighted_kl = {v: factors.get(v, 1) * term for v, term in per_example.items()}
        bound = log_p
        for term in weighted_kl.values():
            bound = bound - term
        for term in self._reinforce_terms(posteriors, log_p, weighted_kl):
            bound = bound + term
        return Bound(bound, {f"log p({self.observed})": log_p, **{f"kl {v}": term for v, term in kl.items()}})

    def sample(self, inputs: Mapping[str, Tensor] | None = None, batch_size: int | None = None) -> Record:
        """Draw every variable: the latent ones in `inputs` from their encoders, the other ones from their priors.

        Args:
            inputs: {latent: support sets (B, k, ...)}.
            batch_size: B; needed only without inputs.

        Returns:
            {variable: (B, ...)}, including the decoder's; each also as an attribute: `sample().x`.

        Raises:
            InputError: neither argument is given, a name is unknown, or a default prior has never scored a value; see
                also `evaluate`.
        """
        inputs = inputs or {}
        self._check_known("inputs", inputs)
        sizes = {len(x) for x in inputs.values()} | ({batch_size} - {None})
        given = f" (got {sizes})" if sizes else ""
        require(len(sizes) == 1, f"give inputs of one batch size, or a batch_size{given}")
        (n,) = sizes
        require(n > 0, f"the batch size must be positive, not {n}")
        factors = self.priors | {name: self.encoders[name] for name in inputs}
        values: dict[str, Tensor] = {}
        for name in topological_order(factors, "chosen distribution"):
            result = self.q(name, inputs[name], values) if name in inputs else self.p(name, values, n=n)
            values[name] = result.value
        return Record(values | {self.observed: self.p(self.observed, values, n=n).value})

    def _reinforce_terms(
        self, posteriors: Mapping[str, Result], log_p: Tensor, weighted_kl: Mapping[str, Tensor]
    ) -> Iterator[Tensor]:
        """Yield terms (B,) of the value 0 that have the gradient of REINFORCE, one for each `reinforce_log_prob`."""
        for name, result in posteriors.items():
            log_q = result.reinforce_log_prob
            if log_q is not None:
                reward = self._reward(name, log_p, weighted_kl).detach()
                baseline = (reward.sum() - reward) / max(len(reward) - 1, 1)  # of the other examples
                yield (reward - baseline) * (log_q - log_q.detach())

    def _reward(self, name: str, log_p: Tensor, weighted_kl: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the bound's terms that depend on a latent variable or on its descendants, (B,)."""
        descendants = self.descendants[name]
        terms = [
            -kl for v, kl in weighted_kl.items() if descendants & {v, *self.encoders[v].given, *self.priors[v].given}
        ]
        return sum(terms, log_p if descendants & set(self.likelihood.given) else torch.zeros_like(log_p))

    def _check_known(self, argument: str, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in self.latents]
        require(
            not unknown, f"{argument} names {', '.join(unknown)}: the latent variables are {', '.join(self.latents)}"
        )

    def _check_batch(
        self, inputs: Mapping[str, Tensor], sizes: Mapping[str, Tensor], observed: Mapping[str, Tensor]
    ) -> None:
        """Check that all names are there and all tensors have a row for each example."""
        for argument, given, needed in (
            ("inputs", inputs, self.latents),
            ("sizes", sizes, self.latents),
            ("the observed variable", observed, (self.observed,)),
        ):
            names = ", ".join(given) or "nothing"
            require(set(given) == set(needed), f"{argument} must be given for {', '.join(needed)} (got {names})")
        n = len(observed[self.observed])
        for name in self.latents:
            n_sets, shape = len(inputs[name]), tuple(getattr(sizes[name], "shape", ()))
            require(n_sets == n, f"inputs has {n_sets} support sets of {name} for {n} examples: give one for each")
            require(shape in ((), (n,)), f"sizes of {name} has the shape {shape}: give {(n,)}, one for each example")
