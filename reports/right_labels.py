"""How often judges read the right labels, of test examples and of generated ones."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from common import distributed
from common.data.batches import Batch, Examples
from common.multimodal_vae import MultimodalVAE
from reports.metrics import BATCH_SIZE, Judge, cross_coherence, joint_coherence


@torch.no_grad()
def read_right(judge: Judge, test: Examples, labels: Tensor) -> Tensor:
    """Whether a judge reads the labels of the test examples themselves: (N, G) bool."""

    def right(rows: Tensor) -> dict[str, Tensor]:
        return {"right": judge.read(test[rows].modalities).cpu() == labels[rows]}

    return distributed.map_rows(len(test), BATCH_SIZE, right, "test examples")["right"]


def coherence(
    model: MultimodalVAE,
    test: Examples,
    labels: Tensor,
    judges: Mapping[str, Judge],
    sources: Mapping[str, Sequence[str]],
    n_samples: int,
    samplers: Mapping[str, Callable[[Batch], Tensor]] | None = None,
    mixtures: Mapping[str, Distribution] | None = None,
) -> dict[str, Tensor]:
    """Cross coherence of all pairs, joint coherence of draws from the prior and from mixtures: {name: (N, G) bool}."""
    pairs = cross_coherence(model, test, labels, judges, sources, samplers)
    right = {f"coherence, {pair}": x for pair, x in pairs.items()}
    generated = of_generated(model, judges)
    if len(generated) > 1:
        right["coherence, joint"] = joint_coherence(model, n_samples, generated)
        for name, latents in (mixtures or {}).items():
            right[f"coherence, joint, z from {name}"] = joint_coherence(model, n_samples, generated, latents)
    return right


def of_generated(model: MultimodalVAE, judges: Mapping[str, Judge]) -> dict[str, Judge]:
    """The judges of what the model generates from z alone."""
    return {name: judge for name, judge in judges.items() if not judge.conditions(model)}


def shares_of(right: Mapping[str, Tensor], all_right: str | None) -> dict[str, Tensor]:
    """Each example's share of right labels, {name: (N,)}, from {name: (N, G)}.

    Args:
        all_right: if given, also return {"NAME, all_right": whether all of an example's labels are right, (N,)}.
    """
    shares = {}
    for name, x in right.items():
        shares[name] = x.double().mean(dim=1)
        if all_right:
            shares[f"{name}, {all_right}"] = x.all(dim=1)
    return shares


def by_label(right: Mapping[str, Tensor], titles: Mapping[str, str] | None) -> dict[str, Tensor]:
    """The share of right answers for each label, {title: (G,)}; none for a single label.

    Args:
        titles: {name: title}, those that are returned; None: all, with their names.
    """
    titles = {name: name for name in right} if titles is None else titles
    shares = {titles[name]: x.double().mean(dim=0) for name, x in right.items() if name in titles}
    return {title: x for title, x in shares.items() if len(x) > 1}
