"""CelebA: photographs of faces and 18 of their 40 attributes, and drawn faces for the demo."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from celeba.attributes import ATTRIBUTES
from celeba.demo import draw_with_masks, random_attributes
from common.data import Examples, hold_out, image_caches
from common.data.files import DataConfig, check_published, download, find, inner, md5_of, read_text, unpack
from common.errors import InputError, brief, require
from common.io import DOWNLOAD_AGAIN

import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "valid", "test")  # in the order of their numbers in the partition file
N_DEMO = {"train": 6000, "valid": 500, "test": 1000}
DRAWN_AT_ONCE = 100
IMAGES, ARCHIVE, CACHE = "img_align_celeba", "img_align_celeba.zip", "celeba_64.npy"
AUTHORS_IMAGES = "images"  # in MVAE's README
ATTRIBUTES_FILE, PARTITION_FILE = "list_attr_celeba.txt", "list_eval_partition.txt"
IMAGE_PLACES = ("", "Img/", "celeba/")
PLACES = {ATTRIBUTES_FILE: ("Anno/", "", "celeba/"), PARTITION_FILE: ("Eval/", "", "celeba/")}
HOST = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
SOURCES = {  # id at the host, md5
    ATTRIBUTES_FILE: ("0B7EVK8r0v71pblRyaVFSWGxPY0U", "75e246fa4810816ffd6ee81facbd244c"),
    PARTITION_FILE: ("0B7EVK8r0v71pY0NSMzRuSXJEVkk", "d32c9cbf5e040fd4025c592c306e6668"),
    ARCHIVE: ("0B7EVK8r0v71pZjFTYXZWM3FlRnM", "00d2c5bc6d35e252742224ab0c1e8fcb"),
}
KNOWN = {("CelebA", name): SOURCES[name][1] for name in PLACES}
HOW_TO_GET_FILES = "--data-dir DIR says where it is, --download fetches it, --demo needs no files"


class FaceConfig(DataConfig, Protocol):
    """`DataConfig`, and what faces need.

    cache_dir: where the images are kept at 64 x 64; None for the data_dir.
    valid: for `load_train` alone, the number of training images to hold out; None for the dataset's validation split.
    """

    cache_dir: Path | None
    valid: int | None


def load(split: str, config: FaceConfig) -> Examples:
    """Load a split of CelebA.

    Args:
        split: "train" (162,770 images, the demo's 6,000), "valid" (19,867, the demo's 500) or "test" (19,962, the
            demo's 1,000), as list_eval_partition.txt says.
        config: its data_dir holds img_align_celeba/, Anno/list_attr_celeba.txt and Eval/list_eval_partition.txt, or all
            three side by side as torchvision leaves them, there or in a folder celeba/. The images may also lie in
            images/, as in MVAE's README, which is read if there is no img_align_celeba/. The demo's faces are drawn.

    Returns:
        image (N, 3, 64, 64) uint8, mapped into memory, and attrs (N, 18) float, 0 or 1.

    Raises:
        InputError: a file is missing, unreadable or damaged, or the files do not match.
    """
    if config.demo:
        faces = drawn(split, config.limit)
        return Examples({"image": faces["image"], "attrs": faces["attrs"].float()})
    data_dir = config.data_dir
    if config.download:
        fetch(data_dir)
    folder, names, splits = source(data_dir)
    rows, attributes = rows_of(split, splits, config.limit), _attributes(data_dir, names)
    cache, remedy = (config.cache_dir or data_dir) / CACHE, f"unpack {ARCHIVE} again, or delete {folder} and --download"
    images = image_caches.load(folder, names, cache, image_caches.Kind(), remedy)
    return Examples({"image": images[rows], "attrs": attributes[rows]})


def load_train(
    config: FaceConfig, load: Callable[[str, FaceConfig], Examples] = load
) -> tuple[Examples, Examples | None]:
    """Load the training examples, and the validation examples that select the best model (None with --valid 0).

    The validation examples are the dataset's validation split, or with --valid images held out from training.

    Args:
        load: loads a split, see `load`.
    """
    train = load("train", config)
    if config.valid is None:
        return train, load("valid", config)
    return hold_out(train, config.valid)


def drawn(split: str, limit: int | None) -> dict[str, Tensor]:
    """Draw the first faces of the demo's split, up to the limit.

    Returns:
        image (N, 3, 64, 64) and mask (N, 1, 64, 64), uint8, and attrs (N, 18) int64, 0 or 1.
    """
    n = min(N_DEMO[split], limit or N_DEMO[split])
    batches = []
    for i in range(-(-n // DRAWN_AT_ONCE)):  # a seed for each batch: a lower limit gives the first of the same faces
        generator = torch.Generator().manual_seed(1000 * SPLITS.index(split) + i)
        attributes = random_attributes(DRAWN_AT_ONCE, generator)
        batches.append((*draw_with_masks(attributes, generator), attributes))
    images, masks, attributes = (torch.cat(x)[:n] for x in zip(*batches, strict=True))
    return {"image": images, "mask": masks, "attrs": attributes}


def source(data_dir: Path) -> tuple[Path, list[str], np.ndarray]:
    """Return the folder of the images, their N file names, and their splits: (N,) indices into SPLITS.

    Raises:
        InputError: the folder or the partition file is missing, or the file is damaged.
    """
    folder = _folder(data_dir)
    how_to_get = f"{HOW_TO_GET_FILES}; --download also unpacks {ARCHIVE} if you put it there"
    require(folder is not None, f"{data_dir / IMAGES} is missing, and so is {AUTHORS_IMAGES}: {how_to_get}")
    path, lines = _lines(data_dir, PARTITION_FILE)
    lines = [line.split() for line in lines]
    wrong = next((i for i, line in enumerate(lines) if len(line) != 2 or line[1] not in ("0", "1", "2")), None)
    require(wrong is None, f"{path} does not give a split, 0, 1 or 2, in line {(wrong or 0) + 1}: {DOWNLOAD_AGAIN}")
    names = [name for name, _ in lines]
    odd = next((name for name in names if Path(name).name != name or not name.isprintable() or len(name) > 255), None)
    require(odd is None, f"{path} names {brief(repr(odd))}, which is not a file in {folder}: {DOWNLOAD_AGAIN}")
    return folder, names, np.array([int(number) for _, number in lines])


def rows_of(split: str, splits: np.ndarray, limit: int | None) -> slice | Tensor:
    """Return the rows of a split, up to the limit: a slice if they are contiguous, as in the official file.

    Args:
        splits: each image's split, (N,) indices into SPLITS.
    """
    rows = np.flatnonzero(splits == SPLITS.index(split))[:limit]
    require(len(rows) > 0, f"{PARTITION_FILE} has no image of the split {split}: {DOWNLOAD_AGAIN}")
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == len(rows) - 1 else torch.from_numpy(rows)


def parse(words: Sequence[str]) -> dict[str, int]:
    """Return the attributes that a user asks for ("Male") or excludes ("~Male"), as {name: 1 or 0}.

    Raises:
        InputError: an attribute is unknown, or asked for and excluded at once.
    """
    names, values = {name.lower(): name for name in ATTRIBUTES}, {}
    for word in words:
        bare = word.lower().removeprefix("~")
        similar = difflib.get_close_matches(bare, names, n=1)
        hint = f"did you mean {names[similar[0]]}? There are" if similar else "there are"
        require(bare in names, f"{word!r} is not an attribute: {hint} {', '.join(ATTRIBUTES)}; ~ negates one")
        name, value = names[bare], int(not word.startswith("~"))
        require(values.get(name, value) == value, f"{name} is asked for and excluded at once: leave out one of them")
        values[name] = value
    return values


def attribute_names(attributes: Tensor) -> list[str]:
    """Return the names of the attributes that each example has, joined by spaces, from attributes (N, 18) in [0, 1]."""
    return [
        " ".join(name for name, has in zip(ATTRIBUTES, row, strict=True) if has > 0.5) for row in attributes.tolist()
    ]


def _attributes(data_dir: Path, names: Sequence[str]) -> Tensor:
    """Read the 18 attributes of all images, (N, 18) float, 0 or 1.

    Args:
        names: the N images in the partition file, which must be those in the attributes' file.
    """
    remedy = "delete both and download them again (--download)"
    path, lines = _lines(data_dir, ATTRIBUTES_FILE)
    n, head, *lines = [*lines, "", ""]
    lines, columns = [line.split() for line in lines if line], head.split()
    lacking = [name for name in ATTRIBUTES if name not in columns]
    require(not lacking, f"{path} lacks the attributes {', '.join(lacking)} in its second line: {remedy}")
    difference = _difference(n, [line[0] for line in lines], names)
    require(difference is None, f"{path} and {PARTITION_FILE} disagree ({difference}): {remedy}")
    try:
        values = np.array([line[1:] for line in lines], dtype=np.int8)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} has lines of other values than -1 and 1: {remedy}") from error
    require(
        values.shape[1:] == (len(columns),) and bool((np.abs(values) == 1).all()),
        f"{path} has lines of other values than -1 and 1: {remedy}",
    )
    return torch.from_numpy(values[:, [columns.index(name) for name in ATTRIBUTES]] > 0).float()


def _difference(n: str, listed: Sequence[str], names: Sequence[str]) -> str | None:
    """Say how the attributes' file, its number of images and their names, differs from the partition's names."""
    for one, other in zip(listed, names, strict=False):
        if one != other:
            return f"{brief(repr(one))} in place of {other}"
    if len(listed) == len(names) and n.strip() == str(len(names)):
        return None
    return f"{brief(repr(n.strip()))} images by its first line, {len(listed)} listed, {len(names)} in the other"


def _folder(data_dir: Path) -> Path | None:
    """Return the folder of the images, None if there is none."""
    folders = [data_dir / name for name in (*(f"{place}{IMAGES}" for place in IMAGE_PLACES), AUTHORS_IMAGES)]
    return next((inner(folder) for folder in folders if folder.is_dir()), None)


def _lines(data_dir: Path, name: str) -> tuple[Path, list[str]]:
    """Return the path and the lines of a text file; raise InputError if it is missing, unreadable, or another one."""
    path = find(data_dir, [f"{place}{name}" for place in PLACES[name]], HOW_TO_GET_FILES)
    lines = read_text(path, DOWNLOAD_AGAIN).rstrip().splitlines()
    check_published(path, md5_of(path), "CelebA", name, KNOWN)
    return path, lines


def fetch(data_dir: Path) -> None:
    """Download missing files, into torchvision's layout, and unpack the images."""
    missing = [name for name in PLACES if not any((data_dir / f"{place}{name}").is_file() for place in PLACES[name])]
    unpacked = _folder(data_dir) is not None
    archives = (data_dir / f"{place}{ARCHIVE}" for place in IMAGE_PLACES)
    archive = next((path for path in archives if path.is_file()), None)
    if not unpacked and archive is None:
        missing.append(ARCHIVE)
    for name in missing:
        file_id, md5 = SOURCES[name]
        download([HOST + file_id], data_dir / name, md5)
    if not unpacked:
        unpack(archive or data_dir / ARCHIVE, IMAGES)
