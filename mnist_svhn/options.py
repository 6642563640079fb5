"""Options of pairing MNIST and SVHN, which all scripts share."""

from dataclasses import dataclass
from typing import Literal

from common.errors import require


@dataclass(kw_only=True)
class PairOptions:
    """Which images are paired, and how many of a class: options that all scripts share."""

    svhn: Literal["real", "synthetic"] = "real"
    """the second modality: SVHN's train_32x32.mat and test_32x32.mat, or digits of MNIST, other ones than the first
    modality's, made to look like house numbers"""
    max_per_class: int = 10_000
    """images of a class that are paired at most, of either modality (authors' code: 10,000)"""
    pair_seed: int = 0
    """of the pairing, and of the synthetic images"""

    def check_options(self) -> None:
        """Raise InputError for values outside their range."""
        require(self.max_per_class > 0, f"--max-per-class must be positive, not {self.max_per_class}")
        require(0 <= self.pair_seed < 2**32, f"--pair-seed must lie between 0 and 2^32, it is {self.pair_seed}")


@dataclass(kw_only=True)
class TrainingPairOptions(PairOptions):
    """`PairOptions`, and how often the training images are paired."""

    matchings: int = 30
    """times that each training image is paired, each time with another of its class (authors' code: 30, their README:
    20)"""

    def check_options(self) -> None:
        """Raise InputError for values outside their range."""
        super().check_options()
        require(self.matchings > 0, f"--matchings must be positive, not {self.matchings}")


def chosen(config: PairOptions) -> dict[str, str | int]:
    """The options that must be the same in training and scoring; none for the demo."""
    return {} if config.demo else {"svhn": config.svhn, "pair_seed": config.pair_seed}
