"""The options that define a MultiMNIST dataset, which all its scripts share."""

from dataclasses import dataclass, fields

from common.errors import require

LENGTH = 4  # characters of a text


@dataclass(kw_only=True)
class DatasetOptions:
    """The options that define a MultiMNIST dataset, which all its scripts share. The defaults are the paper's."""

    min_digits: int = 0
    """lowest number of digits in an image"""
    max_digits: int = 4
    """highest number of digits in an image; all numbers from --min-digits on are equally frequent"""
    fixed: bool = True
    """digits in the corners of a 2x2 grid, in reading order. --no-fixed: anywhere, without overlap, as in the paper"""
    resize: bool = True
    """with --no-fixed: digits of 28 / (1.3 + 0.1 N(0, 1)) pixels. --no-resize: digits of 28 pixels"""
    translate: bool = True
    """with --no-fixed: digits anywhere. --no-translate: digits in the centre"""
    scramble: bool = False
    """list the digits in random order in the text"""
    reverse: bool = False
    """list the digits backwards in the text with probability 0.5"""
    repeat: bool = True
    """allow a digit more than once in an image. --no-repeat: all digits of an image differ"""

    def check_options(self) -> None:
        """Raise InputError for options that exclude each other."""
        low, high = self.min_digits, self.max_digits
        require(
            0 <= low <= high <= LENGTH,
            f"--min-digits {low} --max-digits {high} must keep to 0 <= min <= max <= {LENGTH}",
        )
        if self.fixed:
            require(
                self.resize and self.translate, "--no-resize and --no-translate need --no-fixed: add it, or omit them"
            )
            return
        require(
            self.repeat and not self.scramble and not self.reverse,
            "--scramble, --reverse and --no-repeat need fixed places: omit them, or --no-fixed",
        )
        require(self.translate or high <= 1, f"--no-translate has room for --max-digits 1, not {high}")
        # three digits of 28 pixels do not overlap in one of 39 draws, four in one of 1,700
        require(self.resize or high <= 3, f"--no-resize has room for --max-digits 3, not {high}")


PAPER = DatasetOptions()


def dataset_options(options: DatasetOptions) -> dict[str, int | bool]:
    """Return the `DatasetOptions` of a config, which may have other options too, as {name: value}."""
    return {field.name: getattr(options, field.name) for field in fields(DatasetOptions)}


def changed(options: DatasetOptions) -> dict[str, int | bool]:
    """Those of `dataset_options` that are not the paper's."""
    return {name: value for name, value in dataset_options(options).items() if value != getattr(PAPER, name)}
