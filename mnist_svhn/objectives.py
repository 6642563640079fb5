"""The objectives of MMVAE's experiments by name, and their options."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from common import devices
from common.bounds import Objective
from common.errors import require
from common.models import MultimodalVAE
from common.objectives import DregElbo, IwaeElbo, MixtureElbo, MvaeElbo, ReweightedElbo, StandardElbo, StlElbo
from common.runs import Unsaid
from common.variational_posteriors import MixturePosterior

OF_SAMPLES = {"dreg": DregElbo, "iwae": IwaeElbo, "stl": StlElbo}


MIXTURES = ("mmvae", "mopoe")
LOOSER = Unsaid(True)


@dataclass(kw_only=True)
class ObjectiveOptions:
    obj: Literal["dreg", "iwae", "stl", "elbo", "elbo-importance", "mvae"] = "dreg"
    """the bound, and its gradient (paper: dreg). stl: biased for K > 1; elbo-importance: what the authors' code calls
    elbo, its weights collapse; mvae: ELBO of both and of each modality, of --model mvae"""
    K: int | None = None
    """samples of each encoder, of dreg, iwae and stl. Default: 30 (paper; the authors' script: 20)"""
    looser: bool = LOOSER
    """of dreg, iwae and stl: the mean over the encoders outside the logarithm (paper)"""
    dreg: Literal["exact", "stop-all", "published"] | None = None
    """of dreg. exact, the default: unbiased for mixtures too; stop-all: the paper's rule; published: what its code
    did"""
    beta: float = 1.0
    """weight of log p(z) - log q(z|x) (authors' code: 1)"""
    max_memory: float | None = None
    """decode only as many samples at a time as this many GiB hold with their gradients: the same numbers in less
    memory"""

    OF_THE_OBJECTIVE: ClassVar = ("K", "looser", "dreg")  # options that another --obj does not take over

    def check_objective(self, model: str) -> None:
        """Raise InputError for what does not exist, the objective's or its model's."""
        several, looser_said = self.obj in OF_SAMPLES, self.looser and not isinstance(self.looser, Unsaid)
        require(self.K is None or self.K > 0, f"--K must be positive, not {self.K}")
        require(0 <= self.beta < math.inf, f"--beta must be a number that is not negative, it is {self.beta}")
        require(several or not looser_said, f"--looser: only dreg, iwae and stl have a looser form, not {self.obj}")
        require(
            model in MIXTURES or not looser_said,
            f"--looser is the mean over a mixture's encoders, and --model {model} is none",
        )
        require(several or self.K in (None, 1), f"--K {self.K}: --obj {self.obj} takes one sample of each encoder")
        require(self.dreg is None or self.obj == "dreg", f"--dreg {self.dreg} is of --obj dreg, not {self.obj}")
        require(self.max_memory is None or self.max_memory > 0, f"--max-memory must be positive, not {self.max_memory}")
        require(several or self.max_memory is None, f"--max-memory: --obj {self.obj} takes one sample of each encoder")
        of = {"mvae": "mvae", "elbo-importance": "mmvae"}.get(self.obj, model)
        require(model == of, f"--obj {self.obj} is of --model {of}, not {model}")


def objective(model: MultimodalVAE, options: ObjectiveOptions) -> Objective:
    """The bound that --obj names."""
    if options.obj in OF_SAMPLES:
        if options.max_memory:
            devices.limit_memory(model, options.max_memory)
        rule = {"gradient": options.dreg or "exact"} if options.obj == "dreg" else {}
        return OF_SAMPLES[options.obj](model, options.K or 30, bool(options.looser), **rule)
    if options.obj == "elbo-importance":
        return ReweightedElbo(model)
    if options.obj == "mvae":
        return MvaeElbo(model)
    mixture = isinstance(model.variational_posterior, MixturePosterior)
    return MixtureElbo(model) if mixture else StandardElbo(model)
