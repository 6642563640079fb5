"""Log-likelihoods of subsets of the modalities, and of some given others, in nats.

Each log p(x_S) is `common.estimators.log_marginal` with its own proposal q(z|x_S). A conditional one is a difference of
two estimates, log p(x_T, x_S) - log p(x_S). In expectation each lies below its value; their difference may lie on
either side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.data.batches import Batch
from common.estimators import log_marginal
from common.multimodal_vae import MultimodalVAE
from common.subsets import named_subsets


def likelihood_given(
    model: MultimodalVAE, batch: Batch, target: Sequence[str], given: Sequence[str], **sampling: float | None
) -> dict[str, Tensor]:
    """Estimate log p(x_T|x_S), with log p(x_T, x_S) and log p(x_S), or log p(x_T) if S is empty: {name: (B,)}, nats.

    Args:
        target, given: T and S, without a modality in common.
        sampling: n_samples and tolerance of `common.estimators.log_marginal`.
    """

    def in_order(names: Sequence[str]) -> str:
        return ",".join(name for name in model.modalities if name in names)

    def marginal(names: Sequence[str]) -> dict[str, Tensor]:
        value = log_marginal(model, batch, names, **sampling)
        return {f"log p({in_order(names)}), z from q(z|{in_order(names)})": value}

    rows = marginal((*target, *given))
    if given:
        rows |= marginal(given)
        joint, of_given = rows.values()
        rows[f"log p({in_order(target)}|{in_order(given)})"] = joint - of_given
    return rows


def likelihoods_by_size(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """Estimate log p(x_S) and log p(x_T|x_S), T all others, means over the subsets S of each size: {name: (B,)}, nats.

    Args:
        sampling: n_samples and tolerance of `common.estimators.log_marginal`.

    Raises:
        InputError: more than `common.subsets.MAX_ENUMERATED` modalities.
    """
    sizes: dict[int, list[Tensor]] = {}
    for subset in named_subsets(model.modalities):
        sizes.setdefault(len(subset), []).append(log_marginal(model, batch, subset, **sampling))
    means = {size: torch.stack(values).mean(dim=0) for size, values in sizes.items()}
    rows = {f"log p(x_S), S of {size}": x for size, x in means.items()}
    joint = means.pop(len(model.modalities))
    return rows | {f"log p(x_T|x_S), S of {size}, T all others": joint - x for size, x in means.items()}
