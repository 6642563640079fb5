"""Log-likelihoods of MMVAE's experiments, and on demand what its paper reports in their place."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from common.data.batches import Batch, Examples
from common.errors import require
from common.estimators import joint_and_each, weighted_joint
from common.multimodal_vae import MultimodalVAE
from reports import metrics
from reports.options import LoglikeConfig

BATCH_SIZE = 10  # so that progress is shown often: samples fill the batches of decoders


@dataclass
class MmvaeLoglikeConfig(LoglikeConfig):
    """The options of the loglike.py of MMVAE's experiments."""

    paper: bool = False
    """also estimate what the paper reports as the joint log-likelihood. It is not a log-likelihood: it takes all
    samples of each encoder, and weighs likelihoods as in training (--llik-scaling)"""

    def check_fits(self, model: MultimodalVAE) -> None:
        """Raise InputError if --paper asks for what the model does not have."""
        density, weighs_all_latents = model.variational_posterior.has_density, model.auxiliary is None
        lacking = f"--paper needs a density in closed form, which {self.model} lacks"
        require(density or not self.paper, f"{lacking}: leave it out")
        why = f"--paper needs importance weights of all latents, those of {self.model} leave out its auxiliary priors"
        require(weighs_all_latents or not self.paper, f"{why}: leave --paper out")


def evaluate(
    model: MultimodalVAE, examples: Examples, n_samples: int, tolerance: float | None = None, paper: bool = False
) -> dict[str, Tensor]:
    """Every estimate for every example: {name: (N,)}, nats."""
    evaluations = [partial(joint_and_each, n_samples=n_samples, tolerance=tolerance)]
    if paper:
        evaluations.append(partial(papers_joint, n_samples=n_samples))
    return metrics.evaluate(model, examples.only(model.modalities), evaluations, BATCH_SIZE)


def papers_joint(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """What the paper reports as the joint log-likelihood (Shi et al. 2019), {name: (B,)}."""
    name = f"log p({','.join(model.modalities)}) weighed as in training, by the paper's estimator"
    return {name: weighted_joint(model, batch, n_samples)}
