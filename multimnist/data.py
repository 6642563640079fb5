"""MultiMNIST: images of up to four MNIST digits and the string of these digits, generated once and cached."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot
from tqdm import tqdm

from common.data import Examples
from common.data import array_caches as caches
from common.errors import flag, require
from mnist.data import Dataset
from mnist.data import load as load_mnist

SIZE = 50  # pixels an image is high and wide
DIGIT = 28  # and a digit of MNIST
SHRINK = 1.3  # by which digits are made smaller
CORNERS = ((4, 4), (4, 23), (23, 4), (23, 23))  # row and column of the fixed places, in reading order
LENGTH = 4  # characters of a text
SOS, FILL, N_CHARACTERS = 10, 11, 12  # ids after the digits: where a decoder starts, and what fills a text up
SEED = 681307  # the authors'
N = {"train": 60_000, "test": 10_000}
N_DEMO = {"train": 3_000, "test": 500}
CACHE = "multimnist.npz"
BATCH = 4000  # images drawn at once
BARREN = 100  # such draws in a row without one image to keep are too many
SHOWN = ("", "7", "42", "88", "305", "964", "1773", "2016")  # texts that pictures show


@dataclass(kw_only=True)
class DatasetOptions:
    """Which MultiMNIST: the options that all scripts share. The defaults are the paper's."""

    GROUP: ClassVar = "data"

    min_digits: int = 0
    """lowest number of digits in an image"""
    max_digits: int = 4
    """highest number of digits in an image; all numbers from --min-digits on are equally frequent"""
    fixed: bool = True
    """digits in the corners of a 2x2 grid, in reading order. --no-fixed: anywhere, without overlap. Default: as in the
    paper"""
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
        least, most = self.min_digits, self.max_digits
        require(
            0 <= least <= most <= LENGTH,
            f"--min-digits {least} --max-digits {most} must keep to 0 <= min <= max <= {LENGTH}",
        )
        if self.fixed:
            require(
                self.resize and self.translate, "--no-resize and --no-translate need --no-fixed: add it, or omit them"
            )
            return
        require(
            self.repeat and not self.scramble and not self.reverse,
            "--scramble, --reverse and --no-repeat go with fixed places: omit them, or --no-fixed",
        )
        require(self.translate or most <= 1, f"--no-translate has room for --max-digits 1, not {most}")
        # three digits of 28 pixels avoid each other once in 39 draws, four once in 1,700
        require(self.resize or most <= 3, f"--no-resize has room for --max-digits 3, not {most}")


PAPER = DatasetOptions()


def load(
    split: str,
    data_dir: Path,
    demo: bool = False,
    fetch: bool = False,
    limit: int | None = None,
    options: DatasetOptions = PAPER,
) -> Examples:
    """A split of MultiMNIST.

    Args:
        split: "train" (60,000) or "test" (10,000).
        data_dir: holds the cache that `make` writes.
        demo: 3,000 and 500 images of scikit-learn's scanned digits instead, made in memory.
        fetch: where the cache is missing, download MNIST into data_dir and make it.
        limit: only the first so many examples.
        options: what the cache must have been made with; a script's config will do.

    Returns:
        image (N, 1, 50, 50) uint8 and text (N, 4) int64, digits and then FILL.

    Raises:
        InputError: the cache is missing, damaged or of other options; the options exclude each other.
    """
    options.check_options()
    if demo:
        examples = _from_mnist(split, N_DEMO[split], load_mnist(split, data_dir, demo=True), options, SEED)
    else:
        path = data_dir / CACHE
        if fetch and not path.exists():
            make(data_dir, data_dir, options, SEED, fetch)
        changed = [flag(name, value) for name, value in values(options).items() if value != getattr(PAPER, name)]
        command = " ".join(["python generate.py --mnist-dir DIR --data-dir", str(data_dir), *changed])
        require(path.is_file(), f"{path} is missing: `{command}` makes it, --demo needs no files")
        examples = _read(path, split, values(options))
    return examples.take(slice(limit))


def make(mnist_dir: Path, data_dir: Path, options: DatasetOptions, seed: int = SEED, fetch: bool = False) -> Path:
    """Generate both splits, each from the digits of MNIST's own, and write them to the cache.

    A cache of the same options and seed is left as it is.

    Args:
        mnist_dir: holds MNIST, as mnist.data.load reads it.
        fetch: download what is missing of MNIST into mnist_dir.

    Returns:
        the path of the cache: {train,test}_image (N, 1, 50, 50) and {train,test}_text (N, 4), uint8, and about, json.

    Raises:
        InputError: MNIST is missing or damaged; the options exclude each other; there is a cache that is damaged or of
            other options; the cache could not be written.
    """
    options.check_options()
    path = data_dir / CACHE
    about = {**values(options), "seed": seed}
    if path.exists():
        for split in N:
            _read(path, split, about)
        print(f"{path} is there already")
        return path
    require(
        fetch or any(any(folder.glob("*-ubyte*")) for folder in (mnist_dir, mnist_dir / "MNIST/raw")),
        f"{mnist_dir} holds no MNIST: --mnist-dir DIR says where it is, --download fetches it",
    )
    sources = {split: load_mnist(split, mnist_dir, fetch=fetch) for split in N}
    arrays = {}
    for split, n in N.items():
        made = _from_mnist(split, n, sources[split], options, seed)
        arrays |= {f"{split}_{name}": x.to(torch.uint8) for name, x in made.modalities.items()}
    caches.save(path, about, arrays)
    return path


def generate(digits: Tensor, labels: Tensor, n: int, options: DatasetOptions, generator: torch.Generator) -> Examples:
    """Draw images of several digits, and the strings that name them.

    The number of digits is uniform, and so is each digit among the given ones. Where pixels of an image add up to more
    than 255, or with --no-repeat a digit comes twice, all of the image but its number of digits is drawn again.

    Args:
        digits: (D, 28, 28) uint8.
        labels: (D,) int64, 0 to 9.

    Returns:
        image (n, 1, 50, 50) uint8 and text (n, 4) int64: the digits' labels in reading order (with --no-fixed in the
        order they were drawn), then FILL.

    Raises:
        InputError: the options exclude each other, or the digits always overlap.
    """
    options.check_options()
    count = torch.randint(options.min_digits, options.max_digits + 1, (n,), generator=generator)
    image = torch.empty(n, 1, SIZE, SIZE, dtype=torch.uint8)
    text = torch.empty(n, LENGTH, dtype=torch.int64)
    pending, barren = torch.arange(n), 0
    with tqdm(total=n, unit=" images", leave=False, disable=None) as bar:
        while len(pending):
            rows, pending = pending[:BATCH], pending[BATCH:]
            used = torch.arange(LENGTH) < count[rows, None]  # (B, 4)
            chosen = torch.randint(len(digits), used.shape, generator=generator)
            canvas = _canvas(digits, chosen, used, options, generator)
            characters = labels[chosen].masked_fill(~used, FILL)
            good = canvas.amax(dim=(1, 2)) <= 255
            if not options.repeat:
                good &= (one_hot(characters, N_CHARACTERS).sum(dim=1)[:, :SOS] <= 1).all(dim=1)
            image[rows[good], 0] = canvas[good].to(torch.uint8)
            text[rows[good]] = characters.gather(1, _order(used, options, generator))[good]
            pending = torch.cat([rows[~good], pending])
            barren = 0 if good.any() else barren + 1
            require(barren < BARREN, "these digits leave no room for each other: ask for fewer (--max-digits)")
            bar.update(int(good.sum()))
    return Examples({"image": image, "text": text})


def parse(text: str) -> Tensor:
    """The ids (1, 4) int64 of a string that a user writes, "" to "9999"; anything else is an InputError."""
    require(re.fullmatch("[0-9]{0,4}", text) is not None, f"a string has up to four digits, not {text!r}")
    return torch.tensor([[*map(int, text), *[FILL] * (LENGTH - len(text))]])


def names(text: Tensor) -> list[str]:
    """The strings of ids (..., 4): the digits before the first FILL, and "?" for the SOS that a model may predict."""
    rows = text.reshape(-1, LENGTH).tolist()
    return ["".join("0123456789? "[character] for character in row).split(" ")[0] for row in rows]


def _canvas(
    digits: Tensor, chosen: Tensor, used: Tensor, options: DatasetOptions, generator: torch.Generator
) -> Tensor:
    """The sums (B, 50, 50) int16 of the digits that are chosen (B, 4), where used (B, 4), at their sizes and places."""
    sizes, corners = _places(used, options, generator)
    canvas = torch.zeros(len(used), SIZE, SIZE, dtype=torch.int16)
    for size in sizes[used].unique().tolist():
        i, slot = (used & (sizes == size)).nonzero(as_tuple=True)
        # on bytes this is PIL's resize bit for bit, which the authors' imresize called
        small = interpolate(digits[chosen[i, slot], None], (size, size), mode="bilinear", antialias=True).squeeze(1)
        rows, columns = (corners[i, slot, :, None] + torch.arange(size)).unbind(dim=1)  # (K, size)
        index = (i[:, None, None], rows[:, :, None], columns[:, None, :])
        canvas.index_put_(index, small.to(canvas.dtype), accumulate=True)
    return canvas


def _places(used: Tensor, options: DatasetOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sizes (B, 4) and rows and columns of the upper left corners (B, 4, 2)."""
    if options.fixed:
        return torch.full(used.shape, int(DIGIT / SHRINK)), torch.tensor(CORNERS).expand(*used.shape, 2)
    if options.resize:
        sizes = (DIGIT / (SHRINK + 0.1 * torch.randn(used.shape, generator=generator))).long()
    else:
        sizes = torch.full(used.shape, DIGIT)
    room = (SIZE - sizes).unsqueeze(-1).expand(*used.shape, 2)
    if not options.translate:
        return sizes, room // 2
    return sizes, (torch.rand(room.shape, generator=generator) * (room + 1)).long()


def _order(used: Tensor, options: DatasetOptions, generator: torch.Generator) -> Tensor:
    """Which digit (B, 4) each character of the text names; those not used come last."""
    key = torch.arange(LENGTH).float().expand(used.shape)
    if options.scramble:
        key = torch.rand(used.shape, generator=generator)
    if options.reverse:
        key = torch.where(torch.rand(len(used), 1, generator=generator) < 0.5, -key, key)
    return key.masked_fill(~used, torch.inf).argsort(dim=1)


def _from_mnist(split: str, n: int, source: Examples, options: DatasetOptions, seed: int) -> Examples:
    digits, labels = source.modalities["image"].squeeze(1), source.modalities["text"]
    return generate(digits, labels, n, options, torch.Generator().manual_seed(seed + (split == "test")))


def values(options: DatasetOptions) -> dict[str, int | bool]:
    """The dataset's options alone, of a config that has others too."""
    return {field.name: getattr(options, field.name) for field in fields(DatasetOptions)}


def _read(path: Path, split: str, about: Mapping[str, int | bool]) -> Examples:
    """A split of the cache, which must have been made as `about` says."""
    again = "delete it and make it again with generate.py"
    image, text = caches.load(path, about, [f"{split}_image", f"{split}_text"], again)
    fits = image.dtype == text.dtype == torch.uint8
    fits = fits and image.shape == (N[split], 1, SIZE, SIZE) and text.shape == (N[split], LENGTH)
    filled = text == FILL
    require(
        fits and bool(((text < SOS) | filled).all() and (filled[:, 1:] >= filled[:, :-1]).all()),
        f"{path} does not hold {N[split]} images and texts of the split {split}: {again}",
    )
    return Examples({"image": image, "text": text.long()})


def dataset(options: DatasetOptions) -> Dataset:
    """What the scripts must know of the data, made with these options."""
    return Dataset("multimnist", SIZE, partial(load, options=options), parse, names, SHOWN)
