"""Metrics beside likelihoods: coherence of what a model generates, classes in its latents, KLs between posteriors.

A function in `EVALUATIONS`, at the end, is a metric of every folder's loglike.py.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from common.data.batches import Batch, Examples
from common.estimators import evaluate_batches
from common.execution import processes
from common.model_data import check_values
from common.multimodal_vae import MultimodalVAE
from common.progress import progress_bar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.nn.functional import cross_entropy

BATCH_SIZE = 500


class Judge(NamedTuple):
    """Reads the labels that values of modalities show.

    modalities: those that it reads.
    read: {modality: values (N, ...)} -> labels (N, G) int64; -1 where it can read none, which is never right.
    trained: whether it is a classifier, which errs; False if the values are the labels themselves.
    features: {modality: values (N, ...)} -> what its last layer sees, (N, F); None for judges without such a layer.
    """

    modalities: tuple[str, ...]
    read: Callable[[Mapping[str, Tensor]], Tensor]
    trained: bool = True
    features: Callable[[Mapping[str, Tensor]], Tensor] | None = None

    def conditions(self, model: MultimodalVAE) -> set[str]:
        """The modalities that the decoders of `modalities` see beside z."""
        return {condition for name in self.modalities for condition in model.modality[name].given}


def by_rows(n: int, f: Callable[[Tensor], Tensor], desc: str | None = None, unit: str = " examples") -> Tensor:
    """Apply f to the rows 0 to n - 1, as `processes.map_rows`: indices of rows (B,) -> (B, ...); (n, ...)."""
    return processes.map_rows(n, BATCH_SIZE, lambda rows: {"": f(rows)}, desc, unit)[""]


@torch.no_grad()
def read_right(judge: Judge, test: Examples, labels: Tensor) -> Tensor:
    """Whether a judge reads the labels of the test examples themselves: (N, G) bool."""
    return by_rows(len(test), lambda rows: judge.read(test[rows].modalities).cpu() == labels[rows], "test examples")


@torch.no_grad()
def cross_coherence(
    model: MultimodalVAE,
    examples: Examples,
    labels: Tensor,
    judges: Mapping[str, Judge],
    sources: Mapping[str, Sequence[str]],
    samplers: Mapping[str, Callable[[Batch], Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Whether cross-generated samples show the labels of their sources (Shi et al. 2019, section 4.1).

    One z is drawn from q(z|x_source), and a judge reads the means or modes of p(x_target|z).

    Args:
        examples: N examples of the model's modalities.
        labels: (N, G) int64, what they show.
        judges: by the name of the target.
        sources: {name: modalities given}.
        samplers: {name: function}, sources that draw z in another way: a batch -> z (B, D).

    Returns:
        {"source -> target": (N, G) bool} for all pairs whose target can be decoded given the source.
    """
    examples, samplers = examples.to(model.device), samplers or {}

    def right(rows: Tensor) -> dict[str, Tensor]:
        batch, by_pair = examples[rows], {}
        for source, given in {**sources, **dict.fromkeys(samplers, ())}.items():
            z = samplers[source](batch) if source in samplers else model.posterior(batch, given).sample()
            for target, judge in judges.items():
                if judge.conditions(model) <= set(given):
                    values = model.likelihood.point(model.decode(z, judge.modalities, batch.modalities))
                    by_pair[f"{source} -> {target}"] = judge.read(values).cpu() == labels[rows]
        return by_pair

    return processes.map_rows(len(examples), BATCH_SIZE, right, "cross coherence")


@torch.no_grad()
def joint_coherence(
    model: MultimodalVAE, n: int, judges: Mapping[str, Judge], latents: Distribution | None = None
) -> Tensor:
    """Whether all judges read the same labels of what one draw of the prior generates: (n, G) bool.

    (Shi et al. 2019, section 4.1, with 10,000 draws.)

    Args:
        n: the number of draws.
        judges: at least two.
        latents: what to draw z from in place of the prior.
    """

    read = [name for judge in judges.values() for name in judge.modalities]

    def agree(rows: Tensor) -> Tensor:
        values = model.likelihood.point(model.decode(model.draw_latents(len(rows), latents), read))
        labels = torch.stack([judge.read(values) for judge in judges.values()])  # (judges, B, G)
        return (labels == labels[0]).all(dim=0) & (labels[0] >= 0)

    return by_rows(n, agree, "joint coherence", " draws")


@torch.no_grad()
def sampled_latents(
    model: MultimodalVAE, examples: Examples, sources: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Draw one z of q(z|x_source) for each of N examples and each source: {source: (N, D)}.

    Args:
        sources: {name: modalities given}.
    """
    examples, latents = examples.to(model.device), {}
    for name, given in sources.items():
        z = by_rows(len(examples), lambda rows, x=given: model.posterior(examples[rows], x).sample(), f"z given {name}")
        latents[name] = z.to(model.device)
    return latents


@torch.no_grad()
def divergences(model: MultimodalVAE, examples: Examples, sources: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Divergences of the sources' posteriors from the prior and from each other.

    KL(q(z|x_s) || p(z)) for each source, and for each two the symmetrised (KL(q_1 || q_2) + KL(q_2 || q_1)) / 2, as in
    MMVAE's code. The posterior's family has to factorise over the latents or over spheres. If it is a mixture, each
    source is one modality.

    Args:
        examples: N examples of the model's modalities.
        sources: {name: modalities given}.

    Returns:
        {name: (N, D)}, nats for each example and latent, (N, n) for n spheres; NaN where an example lacks a source.
    """
    device, prior = model.device, model.prior().factors
    examples = examples.to(device)

    def divergences_of(rows: Tensor) -> dict[str, Tensor]:
        batch, experts, present = model.observe(examples[rows]), {}, {}
        for name, given in sources.items():
            experts[name] = model.posterior(batch, given).only_component().factors
            mask = batch.only(given, model.columns).mask
            present[name] = mask.any(dim=1, keepdim=True)  # (B, 1)
        by_name = {
            f"KL(q(z|{name}) || p(z))": torch.where(present[name], kl_divergence(q, prior), torch.nan)
            for name, q in experts.items()
        }
        for (a, p), (b, q) in combinations(experts.items(), 2):
            both_ways = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
            by_name[f"J(q(z|{a}), q(z|{b}))"] = torch.where(present[a] & present[b], both_ways, torch.nan)
        return by_name

    by_name = processes.map_rows(len(examples), BATCH_SIZE, divergences_of, "divergences")
    return {name: x.to(device) for name, x in by_name.items()}


def latent_accuracy(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    n_values: int,
    epochs: int = 30,
    lr: float = 1e-3,
    batch_size: int = 128,
) -> Tensor:
    """Train a linear classifier of latents for each label, with Adam; return where it is right: (N, G) bool.

    (Shi et al. 2019, section 4.1, with one sampled z for each example and 30 epochs.)

    Args:
        train, test: latents (N, D) and labels (N, G), from 0 to n_values - 1.
    """
    (z, labels), shape = train, (train[1].shape[1], n_values)
    linear = nn.Linear(z.shape[1], shape[0] * n_values).to(z)
    optimizer = torch.optim.Adam(linear.parameters(), lr=lr, fused=True)
    for _ in progress_bar(range(epochs), desc="linear classifier of latents", unit=" epochs"):
        for rows in torch.randperm(len(z)).to(z.device).split(batch_size):
            optimizer.zero_grad()
            cross_entropy(linear(z[rows]).view(-1, n_values), labels[rows].flatten()).backward()
            optimizer.step()
    with torch.no_grad():
        return linear(test[0]).unflatten(1, shape).argmax(dim=2) == test[1]


Evaluation = Callable[[nn.Module, Batch], Mapping[str, Tensor]]  # model, B examples -> {name: (B, ...)}

# Every loglike.py also computes these for each test example, and reports their means in its table and its JSON. Those
# that do not apply to a model's modalities return {}.
EVALUATIONS: list[Evaluation] = []


def evaluate_examples(
    model: nn.Module, examples: Examples, evaluations: Sequence[Evaluation], batch_size: int
) -> dict[str, Tensor]:
    """Evaluate a model on examples, a batch at a time: {name: (N, ...)}, on the CPU.

    Several processes share the examples, and draw different noise.

    Args:
        evaluations: a script's own; those of `EVALUATIONS` follow.

    Raises:
        InputError: values that a MultimodalVAE cannot take.
    """

    def values(batch: Batch) -> dict[str, Tensor]:
        return {name: x for f in (*evaluations, *EVALUATIONS) for name, x in f(model, batch).items()}

    if isinstance(model, MultimodalVAE):
        check_values(examples, model)
    return evaluate_batches(examples.to(model.device), batch_size, values)
