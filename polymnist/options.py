"""Options of PolyMNIST that all scripts share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import require
from common.models import choices

MAX_MODALITIES = 10  # photographs to put digits on
NAMES = (
    *("mvae", "mmvae", "mopoe", "mopoe-published", "mvtcae", "crmvae", "mmjsd", "jnf", "dmvae", "mmvae+", "cmvae"),
    *("idmvae", "hoelder", "helvae", "wb", "mwb", "code", "mmvm"),
)
MODELS = {name: choices.MODELS[name] for name in NAMES}  # of --model


@dataclass(kw_only=True)
class DatasetOptions:
    """Which images the modalities m0, m1, ... show."""

    images: Literal["generated", "original"] = "generated"
    """generated: MNIST's digits on photographs from scikit-image and scikit-learn, not comparable with published ones;
    original: the files of MoPoE's, MVTCAE's or MMVAE+'s archive"""
    n_modalities: int = 5
    """images in an example, as in the original, which has no more"""
    translated: bool = False
    """TranslatedPolyMNIST: each digit is a quarter smaller and lies anywhere.
    With --images original it is read from the folder that the multivae package's script makes"""
    quadrant: bool = False
    """PolyMNIST-Quadrant: images of 64 x 64 pixels, each digit in one of four quadrants, which differ between the
    images of an example; analyse.py then reads digit and quadrant from the latents"""
    cache_dir: Path | None = None
    """folder of the decoded images of --images original, and of classifiers. None: in the data-dir"""

    def check_options(self) -> None:
        """Raise InputError for values that no set has."""
        n = self.n_modalities
        require(2 <= n <= MAX_MODALITIES, f"--n-modalities must lie between 2 and {MAX_MODALITIES}, it is {n}")
        generated = self.images == "generated"
        require(generated or not self.quadrant, "--quadrant generates its images: leave out --images original")
        both = self.quadrant and self.translated
        require(not both, "--quadrant and --translated both place the digits: leave out one of them")


def about(config: DatasetOptions) -> dict[str, str]:
    """Facts about the data for tables and JSON."""
    return {} if config.demo else {"images": config.images}


def dataset_options(config: DatasetOptions) -> dict[str, str | int | bool]:
    """The options that must be the same in training and scoring."""
    made = {"n_modalities": config.n_modalities, "translated": config.translated, "quadrant": config.quadrant}
    return about(config) | made
