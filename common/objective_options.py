"""The objectives by name, their options, and which exist for what model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from common import devices
from common.bounds import Objective
from common.errors import require
from common.models import check_fusion
from common.multimodal_vae import MultimodalVAE
from common.objectives import (
    ArElbo,
    DregElbo,
    EnergyIwaeElbo,
    IwaeElbo,
    MixtureElbo,
    MvaeElbo,
    ReweightedElbo,
    StandardElbo,
    StlElbo,
)
from common.options import Unsaid
from common.variational_posteriors import LocScaleEbmPosterior, MixturePosterior

OF_SAMPLES = {"dreg": DregElbo, "iwae": IwaeElbo, "stl": StlElbo}
OF_FUSION = {  # of the experts; the usual one first
    "poe": ("mvae", "elbo", "ar", *OF_SAMPLES),
    "quotient": ("mvae", "elbo", "ar", *OF_SAMPLES),
    "moe": ("elbo", "elbo-importance", *OF_SAMPLES),
    "mopoe": ("elbo", *OF_SAMPLES),
    "own": ("elbo", *OF_SAMPLES),
}
OF_ENERGIES = ("mvae", "elbo", "iwae")
WHY = {
    "mvae": "sums the ELBOs of subsets, which a product of experts has for each",
    "ar": "takes KLs between posteriors of subsets, which mixtures do not have in closed form",
    "jmvae": "draws the posteriors of one modality to that of all, each with an encoder of its own",
    "student": "distils the posteriors of one modality from that of all, each with an encoder of its own",
    "elbo-importance": "weighs the samples of experts against each other, in a mixture of one a modality",
    "elbo": "trains no posterior of a part of the modalities",
} | dict.fromkeys(OF_SAMPLES, "trains no posterior of a part of the modalities")
LOOSER = Unsaid(True)
Name = Literal["dreg", "iwae", "stl", "elbo", "elbo-importance", "mvae", "ar", "jmvae", "student"]


@dataclass(kw_only=True)
class ObjectiveOptions:
    obj: Name | None = None
    """the bound, and its gradient. mvae: ELBO of all modalities and of each; elbo: of all, of a mixture the mean over
    its components; iwae, dreg, stl: importance-weighted (stl: biased for K > 1); ar: chain rule in random order, no
    bound; jmvae, student: of --model jmvae; elbo-importance: what MMVAE's code calls elbo, its weights collapse"""
    K: int | None = None
    """samples of each component, of dreg, iwae and stl; of an ebm posterior in all. Default: 30 (MMVAE's paper; its
    script: 20)"""
    looser: bool = LOOSER
    """of dreg, iwae and stl: the mean over a mixture's components outside the logarithm (MMVAE's paper)"""
    dreg: Literal["exact", "stop-all", "published"] | None = None
    """of dreg. exact, the default: unbiased for mixtures too; stop-all: the paper's rule; published: what its code
    did"""
    max_memory: float | None = None
    """decode only as many samples at a time as this many GiB hold with their gradients: the same numbers in less
    memory"""

    approx_m: int = 0
    """of mvae: so many random subsets of three or more modalities, drawn for each batch, add their ELBOs"""

    OF_THE_OBJECTIVE: ClassVar = ("K", "looser", "dreg", "approx_m")  # options that another --obj does not take over

    def check_objective(self, model: str, known: Sequence[str], fusion: str, posterior: str) -> None:
        """Raise InputError for what does not exist, or not of the model.

        Args:
            model: the option that names it ("--model mvae").
            known: its objectives, the one that is meant by none first.
            fusion, posterior: of its experts (`common.models.fusion_of`).
        """
        check_fusion(fusion, posterior)
        obj, mixture = self.obj or known[0], fusion in ("moe", "mopoe")
        require(
            posterior != "ebm" or obj in OF_ENERGIES or obj not in known,
            f"--obj {obj} takes densities or KLs that are known: an ebm posterior has {', '.join(OF_ENERGIES)}",
        )
        require(obj in known, f"--obj {obj} {WHY[obj]}: {model} has {', '.join(known)}")
        several, looser_said = obj in OF_SAMPLES, self.looser and not isinstance(self.looser, Unsaid)
        require(self.K is None or self.K > 0, f"--K must be positive, not {self.K}")
        require(several or not looser_said, f"--looser: only dreg, iwae and stl have a looser form, not {obj}")
        require(
            mixture or not looser_said,
            f"--looser is the mean over a mixture's encoders, and {model} is none",
        )
        require(several or self.K in (None, 1), f"--K {self.K}: --obj {obj} takes one sample of each encoder")
        require(self.dreg is None or obj == "dreg", f"--dreg {self.dreg} is of --obj dreg, not {obj}")
        require(self.approx_m >= 0, f"--approx-m must not be negative, it is {self.approx_m}")
        require(obj == "mvae" or self.approx_m == 0, f"--approx-m {self.approx_m} is of --obj mvae, not {obj}")
        require(self.max_memory is None or self.max_memory > 0, f"--max-memory must be positive, not {self.max_memory}")
        require(several or self.max_memory is None, f"--max-memory: --obj {obj} takes one sample of each encoder")
        require(
            posterior != "ebm" or obj != "iwae" or self.K != 1,
            "--K 1: of an ebm posterior --obj elbo is the bound of one sample, without the noise of choosing it",
        )


def by_name(
    obj: str, model: MultimodalVAE, options: ObjectiveOptions, weights: Mapping[str, float] | None = None
) -> Objective:
    """The bound of a name, but for JMVAE's, with its options; `check_objective` says which exist."""
    if obj in OF_SAMPLES:
        if options.max_memory:
            devices.limit_memory(model, options.max_memory)
        if isinstance(model.variational_posterior, LocScaleEbmPosterior):
            return EnergyIwaeElbo(model, options.K or 30, weights)
        rule = {"gradient": options.dreg or "exact"} if obj == "dreg" else {}
        return OF_SAMPLES[obj](model, options.K or 30, bool(options.looser), weights, **rule)
    if obj == "elbo":
        mixture = isinstance(model.variational_posterior, MixturePosterior)
        return (MixtureElbo if mixture else StandardElbo)(model, weights)
    if obj == "mvae":
        return MvaeElbo(model, options.approx_m, weights)
    return {"ar": ArElbo, "elbo-importance": ReweightedElbo}[obj](model, weights)
