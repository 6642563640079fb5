"""MultiMNIST: images of up to four MNIST digits and the string of these digits, generated once and cached."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from common.data import Examples, arrays
from common.data.arrays import Expected
from common.data.files import DataConfig
from common.errors import flags, require
from common.progress import progress_bar
from mnist.data import Dataset, digits
from mnist.demo import scanned_digits
from multimnist.options import LENGTH, DatasetOptions, changed, dataset_options

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

SIZE = 50  # height and width of an image in pixels
DIGIT = 28  # height and width of a digit of MNIST
SHRINK = 1.3  # factor by which digits are made smaller
CORNERS = ((4, 4), (4, 23), (23, 4), (23, 23))  # row and column of the fixed places, in reading order
SOS, FILL, N_CHARACTERS = 10, 11, 12  # ids after the digits: start of a string for the decoder, padding at its end
SEED = 681307  # the authors'
N = {"train": 60_000, "test": 10_000}
N_DEMO = {"train": 3_000, "test": 500}
CACHE = "multimnist.npz"
BATCH = 4000  # images drawn at once
MAX_FAILURES = 100_000  # images in a row that are drawn and not kept, after which `generate` gives up
SHOWN = ("", "7", "42", "88", "305", "964", "1773", "2016")  # texts for which pictures show samples


class MultimnistConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `DatasetOptions`."""


def load(split: str, config: MultimnistConfig) -> Examples:
    """Load a split of MultiMNIST.

    Args:
        split: "train" (60,000 examples, the demo's 3,000) or "test" (10,000, the demo's 500).
        config: its data_dir holds the cache, which `make` wrote with the same options. With download a missing cache is
            made from MNIST, downloaded into the data_dir. The demo shows the scanned digits of scikit-learn.

    Returns:
        image (N, 1, 50, 50) uint8 and text (N, 4) int64, digits and then FILL.

    Raises:
        InputError: the cache is missing, damaged or made with other options; the options exclude each other.
    """
    options = DatasetOptions(**dataset_options(config))
    options.check_options()
    if config.demo:
        examples = _from_mnist(split, N_DEMO[split], scanned_digits(split), options, SEED)
    else:
        path = config.data_dir / CACHE
        if config.download and not path.exists():
            make(config.data_dir, config.data_dir, options, SEED, download=True)
        command = f"python generate.py --mnist-dir DIR --data-dir {config.data_dir} {flags(changed(options))}".rstrip()
        require(path.is_file(), f"{path} is missing: `{command}` makes it, --demo needs no files")
        examples = _read(path, split, dataset_options(options))
    return examples.take(slice(config.limit))


def make(mnist_dir: Path, data_dir: Path, options: DatasetOptions, seed: int = SEED, download: bool = False) -> Path:
    """Generate both splits from the same splits of MNIST, and write them to the cache; return its path.

    A cache made with the same options and seed is left as it is.

    Args:
        mnist_dir: holds MNIST, as mnist.data.load reads it.
        data_dir: where the cache is written.
        download: download missing files of MNIST into mnist_dir.

    Returns:
        Path of an npz file of {train,test}_image (N, 1, 50, 50) and {train,test}_text (N, 4), uint8, and about, a JSON
        string of the options and seed.

    Raises:
        InputError: MNIST is missing or damaged; the options exclude each other; the cache that exists is damaged or was
            made with other options; the cache cannot be written.
    """
    options.check_options()
    path = data_dir / CACHE
    about = {**dataset_options(options), "seed": seed}
    if path.exists():
        for split in N:
            _read(path, split, about)
        print(f"{path} exists already")
        return path
    require(
        download or any(any(folder.glob("[!.]*-ubyte*")) for folder in (mnist_dir, mnist_dir / "MNIST/raw")),
        f"{mnist_dir} holds no MNIST: --mnist-dir DIR says where it is, --download fetches it",
    )
    sources = {split: digits(split, mnist_dir, download=download) for split in N}
    generated = {}
    for split, n in N.items():
        examples = _from_mnist(split, n, sources[split], options, seed)
        generated |= {f"{split}_{name}": x.to(torch.uint8) for name, x in examples.modalities.items()}
    arrays.save(path, about, generated)
    return path


def generate(digits: Tensor, labels: Tensor, n: int, options: DatasetOptions, generator: torch.Generator) -> Examples:
    """Draw n images of several digits, and the strings of their labels.

    The number of digits is uniform, and so is each digit among the given ones. If pixels of an image add up to more
    than 255, or with --no-repeat two digits are the same, the image is drawn again with the same number of digits.

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
    lengths = torch.randint(options.min_digits, options.max_digits + 1, (n,), generator=generator)
    image = torch.empty(n, 1, SIZE, SIZE, dtype=torch.uint8)
    text = torch.empty(n, LENGTH, dtype=torch.int64)
    pending, failures = torch.arange(n), 0
    with progress_bar(total=n, unit=" images", leave=False) as bar:
        while len(pending):
            rows, pending = pending[:BATCH], pending[BATCH:]
            used = torch.arange(LENGTH) < lengths[rows, None]  # (B, 4)
            chosen = torch.randint(len(digits), used.shape, generator=generator)
            canvas = _canvas(digits, chosen, used, options, generator)
            characters = labels[chosen].masked_fill(~used, FILL)
            good = canvas.amax(dim=(1, 2)) <= 255
            if not options.repeat:
                good &= (one_hot(characters, N_CHARACTERS).sum(dim=1)[:, :SOS] <= 1).all(dim=1)
            image[rows[good], 0] = canvas[good].to(torch.uint8)
            text[rows[good]] = characters.gather(1, _order(used, options, generator))[good]
            pending = torch.cat([rows[~good], pending])
            failures = 0 if good.any() else failures + len(rows)
            require(failures < MAX_FAILURES, "the digits leave no room for each other: ask for fewer (--max-digits)")
            bar.update(int(good.sum()))
    return Examples({"image": image, "text": text})


def parse(text: str) -> Tensor:
    """Return the ids (1, 4) int64 of a string that a user writes, "" to "9999".

    Raises:
        InputError: it is not a string of up to four digits.
    """
    require(re.fullmatch("[0-9]{0,4}", text) is not None, f"a string has up to four digits, not {text!r}")
    return torch.tensor([[*map(int, text), *[FILL] * (LENGTH - len(text))]])


def names(text: Tensor) -> list[str]:
    """Return the strings of ids (..., 4), flattened: the digits before the first FILL, "?" for a predicted SOS."""
    rows = text.reshape(-1, LENGTH).tolist()
    return ["".join("0123456789? "[character] for character in row).split(" ")[0] for row in rows]


def _canvas(
    digits: Tensor, chosen: Tensor, used: Tensor, options: DatasetOptions, generator: torch.Generator
) -> Tensor:
    """Return the sums (B, 50, 50) int16 of up to four digits per image, at random or fixed sizes and places.

    Args:
        digits: (D, 28, 28) uint8.
        chosen: indices into digits, (B, 4).
        used: which of the chosen ones the image shows, (B, 4) bool.
    """
    sizes, corners = _places(used, options, generator)
    canvas = torch.zeros(len(used), SIZE, SIZE, dtype=torch.int16)
    for size in sizes[used].unique().tolist():
        i, slot = (used & (sizes == size)).nonzero(as_tuple=True)
        # for uint8 this equals PIL's resize bit for bit, which the authors' imresize called
        small = interpolate(digits[chosen[i, slot], None], (size, size), mode="bilinear", antialias=True).squeeze(1)
        rows, columns = (corners[i, slot, :, None] + torch.arange(size)).unbind(dim=1)  # (K, size)
        index = (i[:, None, None], rows[:, :, None], columns[:, None, :])
        canvas.index_put_(index, small.to(canvas.dtype), accumulate=True)
    return canvas


def _places(used: Tensor, options: DatasetOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the digits' sizes (B, 4), and the rows and columns of their upper left corners (B, 4, 2), in pixels."""
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
    """Return the index (B, 4) of the digit that each character of the text names; unused digits come last."""
    key = torch.arange(LENGTH).float().expand(used.shape)
    if options.scramble:
        key = torch.rand(used.shape, generator=generator)
    if options.reverse:
        key = torch.where(torch.rand(len(used), 1, generator=generator) < 0.5, -key, key)
    return key.masked_fill(~used, torch.inf).argsort(dim=1)


def _from_mnist(split: str, n: int, source: Examples, options: DatasetOptions, seed: int) -> Examples:
    """Generate n examples of a split from the digits of the source; the splits have different random draws."""
    digits, labels = source.modalities["image"].squeeze(1), source.modalities["text"]
    return generate(digits, labels, n, options, torch.Generator().manual_seed(seed + (split == "test")))


def _read(path: Path, split: str, about: Mapping[str, int | bool]) -> Examples:
    """Read a split from the cache; raise InputError unless it was made with the options in `about`."""
    again = "delete it and make it again with generate.py"
    shapes = {f"{split}_image": (N[split], 1, SIZE, SIZE), f"{split}_text": (N[split], LENGTH)}
    expected = {name: Expected("|u1", shape) for name, shape in shapes.items()}
    image, text = arrays.load(path, about, expected, again)
    filled = text == FILL
    valid = ((text < SOS) | filled).all() and (filled[:, 1:] >= filled[:, :-1]).all()
    require(bool(valid), f"{path} holds texts of the split {split} that are not up to four digits: {again}")
    return Examples({"image": image, "text": text.long()})


MULTIMNIST = Dataset("multimnist", SIZE, load, parse, names, SHOWN, sampler="posterior")
