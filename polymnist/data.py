"""PolyMNIST (Sutter et al. 2021, arXiv 2105.02470): read from its archives, or generated from MNIST."""

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from common.data import Examples, files, image_caches
from common.data.files import DataConfig, inner, unpack
from common.data.image_caches import in_mode, open_picture
from common.errors import InputError, require
from common.io import load_tensors
from mnist.data import digits
from polymnist.quadrants import in_quadrants, random_crops

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

SIZE = 28  # height and width of an image in pixels
N_CLASSES = 10
THRESHOLD = 128  # brighter pixels of MNIST belong to the digit
SHRUNK = 21  # height and width of a digit of TranslatedPolyMNIST, 3/4 of MNIST's
MAX_SHIFT = 6  # of its upper left corner
ROOTS = ("", "MMNIST", "PolyMNIST")  # folders of the archives
TRANSLATED_ROOT = "Translated_MMNIST_scale_75_translated_True"  # that the multivae package's script makes
URL = "https://zenodo.org/record/4899160/files/PolyMNIST.zip"  # MVTCAE's: MMNIST/ with tensors, without a known md5
ARCHIVE = "PolyMNIST.zip"
NAME = re.compile(r"(\d+)\.(\d)\.png")
AT_MOST_FIVE = "give --n-modalities 5 at most, since the archives have no more"
PHOTOGRAPHS = (  # by modality
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


class PolyConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `DatasetOptions`."""

    images: Literal["generated", "original"]
    n_modalities: int
    translated: bool
    quadrant: bool
    cache_dir: Path | None

    def check_options(self) -> None: ...


def modalities(n: int) -> tuple[str, ...]:
    """m0, m1, ...: the names of n modalities."""
    return tuple(f"m{i}" for i in range(n))


def load(split: str, config: PolyConfig) -> Examples:
    """Load a split, in an order that mixes the classes and is always the same.

    Args:
        split: "train" (60,000 examples, the demo's 1,500) or "test" (10,000, the demo's 297).
        config: data_dir holds MNIST, as `mnist.data.load` reads it, for generated images. For original ones it holds
            train/ and test/, or a folder MMNIST or PolyMNIST with these, as the archives have them: m0/ to m4/ with
            PNG files I.CLASS.png, or m0.pt to m4.pt and labels.pt; translated ones lie in the folder that the
            `multivae` package's script makes. The demo has scikit-learn's scanned digits. download fetches what is
            missing.

    Returns:
        m0, m1, ... (N, 3, 28, 28) uint8 and digit (N,) int64, the class that all images of an example show. With
        quadrant the images are (N, 3, 64, 64), and quadrant_m0, ... (N,) int64 say where the digits lie.

    Raises:
        InputError: a file is missing or damaged, the modalities' files differ, or an option is out of range.
    """
    config.check_options()
    from_files = config.images == "original"
    require(
        not config.demo or not from_files, "--images original reads files, --demo has its own: leave out one of them"
    )
    require(
        not (config.download and from_files and config.translated),
        "--download has no TranslatedPolyMNIST: leave it out, and make the files by the multivae package's script",
    )
    names = modalities(config.n_modalities)
    if not from_files:
        of_mnist = digits(split, config.data_dir, config.demo, config.download).modalities
        background = dark_background if config.demo else photograph
        images, labels = of_mnist["image"], of_mnist["text"]
        return generate(images, labels, names, split, config.translated, config.quadrant, background, config.limit)
    if config.download:
        fetch(config.data_dir)
    examples = read(config.data_dir, split, names, config.cache_dir, config.translated)
    return examples.take(torch.randperm(len(examples), generator=generator(split, "order"))[: config.limit])


def generator(split: str, part: str) -> torch.Generator:
    """The random draws of a part of a split, which no other part changes."""
    return torch.Generator().manual_seed(zlib.crc32(f"polymnist {split} {part}".encode()))


def photograph(i: int) -> Tensor:
    """The photograph of modality i, (3, H, W) uint8."""
    package, name = PHOTOGRAPHS[i]
    with open_picture(files.of_package(package, name), f"install {package} again") as image:
        return torch.from_numpy(np.array(in_mode(image, "RGB"))).permute(2, 0, 1)


def dark_background(i: int) -> Tensor:
    """The photograph of modality i, out of focus and darkened, (3, H, W) uint8: digits on it are seen everywhere."""
    image = photograph(i).float()
    blurred = interpolate(avg_pool2d(image, 16)[None], size=image.shape[1:], mode="bilinear")[0]
    return (0.4 * blurred).round().to(torch.uint8)


def generate(
    digits: Tensor,
    labels: Tensor,
    names: tuple[str, ...],
    split: str,
    translated: bool = False,
    quadrant: bool = False,
    background: Callable[[int], Tensor] = photograph,
    limit: int | None = None,
) -> Examples:
    """Pair digits of a class at random, and invert the pixels of random background crops where a digit is.

    Every digit occurs once in every modality. A modality's images do not depend on the number of modalities, nor on the
    limit.

    Args:
        digits: (N, 1, 28, 28) uint8.
        labels: (N,) int64.
        translated: shrink each digit to 21 pixels and move it by 0 to 6 pixels in both directions.
        quadrant: draw each digit on a larger crop, see `in_quadrants`.
        background: a modality's number -> (3, H, W) uint8.
        limit: make only the first examples.

    Returns:
        the modalities `names`, (N, 3, 28, 28) uint8, and digit (N,) int64; with quadrant as `load` says.
    """
    order = torch.randperm(len(labels), generator=generator(split, "order"))
    by_class, images, quadrants, n = labels.argsort(stable=True), {}, {}, len(labels)
    for name in names:
        random, m = generator(split, name), int(name[1:])
        shuffled = torch.randperm(n, generator=random)
        rows = torch.empty_like(shuffled)
        # the i-th example of a class gets the i-th of its class in a new order
        rows[by_class] = shuffled[labels[shuffled].argsort(stable=True)]
        shown = digits[rows[order], 0]
        if quadrant:
            images[name], quadrants[f"quadrant_{name}"] = in_quadrants(shown, m, background(m), random, limit)
        else:
            shown = moved(shown, random) if translated else shown
            crops = random_crops(background(m), SIZE, n, random, limit)
            images[name] = torch.where((shown[:limit] > THRESHOLD).unsqueeze(1), 255 - crops, crops)
    return Examples(images | {"digit": labels[order][:limit]} | quadrants)


def moved(digits: Tensor, random: torch.Generator) -> Tensor:
    """Shrink digits (N, 28, 28) uint8 to 21 pixels and put them at random places."""
    small = interpolate(digits.unsqueeze(1).float(), size=(SHRUNK, SHRUNK), mode="bilinear", antialias=True)
    canvas = pad(small.squeeze(1).round().to(torch.uint8), (MAX_SHIFT, SIZE - SHRUNK) * 2)  # (N, 34, 34)
    shift = MAX_SHIFT - torch.randint(MAX_SHIFT + 1, (2, len(digits), 1, 1), generator=random)
    down, right = torch.arange(SIZE).view(-1, 1), torch.arange(SIZE)
    return canvas[torch.arange(len(digits)).view(-1, 1, 1), shift[0] + down, shift[1] + right]


def with_missing(examples: Examples, ratio: float, keep_incomplete: bool) -> Examples:
    """Leave images of m1, m2, ... out at random, each with the probability `ratio`, as the `multivae` package does.

    Its generators have the modality's number as their seed, for every run and every split; m0 is always there.

    Args:
        examples: N examples of m0, m1, ...
        keep_incomplete: whether examples that lack an image stay. If not, only complete examples are kept. (The
            package keeps the first rows instead, complete or not: the expected number of complete ones.)
    """
    if ratio == 0:
        return examples
    n, names = len(examples), list(examples.modalities)
    drawn = [torch.Generator().manual_seed(m) for m in range(len(names))]
    kept = [torch.bernoulli(torch.full((n,), 1 - ratio if m else 1.0), generator=g) for m, g in enumerate(drawn)]
    mask = torch.stack(kept, dim=1).bool()
    if keep_incomplete:
        return replace(examples, mask=mask)
    complete = mask.all(dim=1)
    require(
        bool(complete.any()), f"--missing {ratio} leaves none of {n} examples complete: leave --no-keep-incomplete out"
    )
    return examples.take(complete)


def fetch(data_dir: Path) -> None:
    """Download MVTCAE's archive and unpack its folder MMNIST, unless the data-dir has an archive's images already."""
    if any((inner(data_dir / root) / "train" / first).exists() for root in ROOTS for first in ("m0", "m0.pt")):
        return
    if not (data_dir / ARCHIVE).is_file():
        files.download([URL], data_dir / ARCHIVE, None)
    unpack(data_dir / ARCHIVE, "MMNIST")


def read(
    data_dir: Path, split: str, names: tuple[str, ...], cache_dir: Path | None = None, translated: bool = False
) -> Examples:
    """Read a split of the original archives, by class and number.

    Args:
        cache_dir: keeps decoded pictures; by default the folder with the split's pictures.
        translated: read TranslatedPolyMNIST.

    Raises:
        InputError: see `load`.
    """
    folders = [inner(data_dir / root) / split for root in ([TRANSLATED_ROOT] if translated else ROOTS)]
    for folder in folders:
        if (folder / "m0").is_dir():
            cached = f"polymnist_translated_{split}" if translated else f"polymnist_{split}"
            return _read_pictures(folder, names, (cache_dir or folder) / cached)
        if (folder / "m0.pt").is_file():
            return _read_tensors(folder, names)
    require(
        not translated,
        f"{folders[0]} holds no m0: make it by the multivae package's script, or leave out --images original",
    )
    raise InputError(
        f"{folders[0]} holds no m0 (nor do {' and '.join(map(str, folders[1:]))}): unpack an archive of PolyMNIST "
        "there, fetch one with --download, or leave out --images original"
    )


def _read_pictures(folder: Path, names: tuple[str, ...], cache: Path) -> Examples:
    """Read FOLDER/m0/I.CLASS.png and the other modalities' files of the same names.

    Args:
        cache: the beginning of the names of the files that keep decoded pictures.
    """
    remedy, first, found = "unpack the archive again", names[0], {}
    for name in names:
        require((folder / name).is_dir(), f"{folder / name} is missing: {AT_MOST_FIVE}, or {remedy}")
    for name in names:
        listed = [path.name for path in (folder / name).glob("[!.]*")]
        odd = min((file for file in listed if not NAME.fullmatch(file.lower())), default="")
        require(not odd, f"{folder / name / odd} is not named I.CLASS.png: move it away, or {remedy}")
        found[name] = {file.lower() for file in listed}
        for other, lacking in ((name, found[first] - found[name]), (first, found[name] - found[first])):
            missing = folder / other / min(lacking, default="")
            require(not lacking, f"{missing} is missing, others have it: {remedy}")
    require(len(found[first]) > 0, f"{folder / first} holds no files I.CLASS.png: {remedy}")
    by_class = {file: tuple(map(int, NAME.fullmatch(file).group(2, 1))) for file in found[first]}
    ordered = sorted(by_class, key=by_class.get)
    images, kind = {}, image_caches.Kind(size=SIZE)
    for name in names:
        path = cache.with_name(f"{cache.name}_{name}_28.npy")
        images[name] = image_caches.load(folder / name, ordered, path, kind, remedy, exact=True)
    return Examples(images | {"digit": torch.tensor([by_class[file][0] for file in ordered])})


def _read_tensors(folder: Path, names: tuple[str, ...]) -> Examples:
    """Read FOLDER/m0.pt, ..., (N, 3, 28, 28) in [0, 1], and labels.pt."""
    remedy = "unpack the archive again"
    labels = load_tensors(folder / "labels.pt", Tensor, remedy, remedy)
    images = {}
    for name in names:
        path = folder / f"{name}.pt"
        x = load_tensors(path, Tensor, f"{AT_MOST_FIVE}, or {remedy}", remedy)
        fits = x.is_floating_point() and x.shape == (len(labels), 3, SIZE, SIZE)
        require(
            fits and bool(((x >= 0) & (x <= 1)).all()),
            f"{path} does not hold {len(labels)} images of 3 x 28 x 28 numbers in [0, 1], as labels.pt asks: {remedy}",
        )
        images[name] = (255 * x).round().to(torch.uint8)
    digit = labels.long().flatten()
    require(
        len(digit) == len(labels) and bool(((digit >= 0) & (digit < N_CLASSES)).all()),
        f"{folder / 'labels.pt'} does not hold the classes 0 to 9: {remedy}",
    )
    return Examples(images | {"digit": digit})
