"""Log-likelihoods of subsets of the modalities, and of MMVAE's experiments as its paper reports them, in nats.

Each log p(x_S) is `common.estimators.log_marginal` with its own proposal q(z|x_S). A conditional one is a difference of
two estimates, log p(x_T, x_S) - log p(x_S). In expectation each lies below its value; their difference may lie on
either side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from common.data.batches import Batch, Examples
from common.errors import require, require_names
from common.estimators import joint_and_each, log_marginal, weighted_joint
from common.multimodal_vae import MultimodalVAE
from common.subsets import named_subsets
from reports import metrics
from reports.options import LoglikeConfig, SubsetLikelihoodsConfig

import torch
from torch import Tensor

BATCH_SIZE = 10  # so that progress is shown often: samples fill the batches of decoders


@dataclass
class MmvaeLoglikeConfig(LoglikeConfig):
    """The options of the loglike.py of MMVAE's experiments."""

    paper: bool = False
    """also estimate what the paper reports as the joint log-likelihood.
    It is none: it takes all samples of each encoder, and weighs likelihoods as in training (--llik-scaling)"""

    def check_fits(self, model: MultimodalVAE) -> None:
        """Raise InputError if --paper asks for what the model does not have."""
        density, weighs_all_latents = model.variational_posterior.has_density, model.auxiliary is None
        lacking = f"--paper needs a density in closed form, which {self.model} lacks"
        require(density or not self.paper, f"{lacking}: leave it out")
        why = f"--paper needs importance weights of all latents, those of {self.model} leave out its auxiliary priors"
        require(weighs_all_latents or not self.paper, f"{why}: leave --paper out")


def mmvae_estimates(
    model: MultimodalVAE, examples: Examples, n_samples: int, tolerance: float | None = None, paper: bool = False
) -> dict[str, Tensor]:
    """Every estimate of MMVAE's experiments for every example: {name: (N,)}, nats."""
    evaluations = [partial(joint_and_each, n_samples=n_samples, tolerance=tolerance)]
    if paper:
        name = f"log p({','.join(model.modalities)}) weighed as in training, by the paper's estimator"
        evaluations.append(lambda model, batch: {name: weighted_joint(model, batch, n_samples)})
    return metrics.evaluate_examples(model, examples.only(model.modalities), evaluations, BATCH_SIZE)


def of_subsets(config: SubsetLikelihoodsConfig, model: MultimodalVAE) -> list[metrics.Evaluation]:
    """The estimates of complete examples that --by-size, --target and --given ask for.

    Raises:
        InputError: modalities that the model lacks, or that are both given and targets.
    """
    names, asked = model.modalities, (*config.target, *config.given)
    for name in asked:
        require(name in names, f"this model has no {name}: --target and --given take {', '.join(names)}")
        require(asked.count(name) == 1, f"--target and --given name {name} more than once: name it once")
    target = config.target or tuple(name for name in names if name not in config.given)
    require(bool(target), "--given names all modalities: leave one to be the target")
    chosen = [partial(likelihoods_by_size, **config.sampling)] if config.by_size else []
    return chosen + [partial(likelihood_given, target=target, given=config.given, **config.sampling)] * bool(asked)


def likelihood_given(
    model: MultimodalVAE, batch: Batch, target: Sequence[str], given: Sequence[str], **sampling: float | None
) -> dict[str, Tensor]:
    """Estimate log p(x_T|x_S), with log p(x_T, x_S) and log p(x_S), or log p(x_T) if S is empty: {name: (B,)}, nats.

    Args:
        target, given: T and S, without a modality in common.
        sampling: n_samples and tolerance of `common.estimators.log_marginal`.
    """
    require_names(target, given)

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
