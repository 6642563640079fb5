"""CelebA: photographs of faces and 18 of their 40 attributes, and drawn faces for the demo."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from celeba.attributes import ATTRIBUTES
from celeba.demo import draw_with_masks, random_attributes
from common.data import Examples, hold_out, image_caches
from common.data.config import DataConfig
from common.data.files import download, find, unpack
from common.errors import InputError, require

SPLITS = ("train", "valid", "test")  # by their number in the partition file
N_DEMO = {"train": 6000, "valid": 500, "test": 1000}
DRAWN_AT_ONCE = 100
IMAGES, ARCHIVE, CACHE = "img_align_celeba", "img_align_celeba.zip", "celeba_64.npy"
FILES = {"attributes": "list_attr_celeba.txt", "partition": "list_eval_partition.txt"}
HOST = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
SAYS_WHERE = "--data-dir DIR says where it is, --download fetches it, --demo needs no files"


class FaceConfig(DataConfig, Protocol):
    """`DataConfig`, and cache_dir: where the images are kept at 64 x 64; the data_dir for None."""

    cache_dir: Path | None


class TrainingFaceConfig(FaceConfig, Protocol):
    """Also valid: the number of training images to hold out; None for the dataset's validation split."""

    valid: int | None


def load(split: str, config: FaceConfig) -> Examples:
    """Load a split of CelebA.

    Args:
        split: "train" (162,770 images, the demo's 6,000), "valid" (19,867, the demo's 500) or "test" (19,962, the
            demo's 1,000), as list_eval_partition.txt says.
        config: its data_dir holds img_align_celeba/, Anno/list_attr_celeba.txt and Eval/list_eval_partition.txt, or all
            three side by side, as torchvision leaves them, also in a folder celeba/. The demo's faces are drawn.

    Returns:
        image (N, 3, 64, 64) uint8, mapped into memory, and attrs (N, 18) float, 0 or 1.

    Raises:
        InputError: something is missing, unreadable, damaged, or does not fit together.
    """
    if config.demo:
        faces = drawn(split, config.limit)
        return Examples({"image": faces["image"], "attrs": faces["attrs"].float()})
    data_dir = config.data_dir
    if config.download:
        _fetch(data_dir)
    folder, names, parts = source(data_dir)
    attributes = _attributes(data_dir, names)
    images = image_caches.load(folder, names, (config.cache_dir or data_dir) / CACHE, image_caches.Kind())
    rows = rows_of(split, parts, config.limit)
    return Examples({"image": images[rows], "attrs": attributes[rows]})


def load_train(
    config: TrainingFaceConfig, load: Callable[[str, FaceConfig], Examples] = load
) -> tuple[Examples, Examples | None]:
    """Load what to train on, and what to select the best model by: the dataset's validation split, or --valid images.

    Args:
        load: loads a split, see `load`.
    """
    train = load("train", config)
    if config.valid is None:
        return train, load("valid", config)
    return hold_out(train, config.valid)


def drawn(split: str, limit: int | None) -> dict[str, Tensor]:
    """The first of a split's drawn faces: image (N, 3, 64, 64), mask (N, 1, 64, 64) uint8, attrs (N, 18)."""
    n = min(N_DEMO[split], limit or N_DEMO[split])
    parts = []
    for part in range(-(-n // DRAWN_AT_ONCE)):  # each from a seed of its own, so that fewer are the first of more
        generator = torch.Generator().manual_seed(1000 * SPLITS.index(split) + part)
        attributes = random_attributes(DRAWN_AT_ONCE, generator)
        parts.append((*draw_with_masks(attributes, generator), attributes))
    images, masks, attributes = (torch.cat(x)[:n] for x in zip(*parts, strict=True))
    return {"image": images, "mask": masks, "attrs": attributes}


def source(data_dir: Path) -> tuple[Path, list[str], np.ndarray]:
    """The folder of the images, their names, and the number of each one's split."""
    folder = _folder(data_dir)
    says_where = f"{SAYS_WHERE} (and unpacks {ARCHIVE}, put there by hand)"
    require(folder is not None, f"{data_dir / IMAGES} is missing: {says_where}")
    path = _file(data_dir, "partition")
    lines = [line.split() for line in _lines(path)]
    wrong = next((i for i, line in enumerate(lines) if len(line) != 2 or line[1] not in ("0", "1", "2")), None)
    require(wrong is None, f"{path} says no split in line {(wrong or 0) + 1}: get it again (--download)")
    return folder, [name for name, _ in lines], np.array([int(part) for _, part in lines])


def rows_of(split: str, parts: np.ndarray, limit: int | None) -> slice | Tensor:
    """The first examples of a split: a slice where they lie side by side, as the official ones do."""
    rows = np.flatnonzero(parts == SPLITS.index(split))[:limit]
    require(len(rows) > 0, f"{FILES['partition']} has no image of the split {split}")
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == len(rows) - 1 else torch.from_numpy(rows)


def parse(wanted: Sequence[str]) -> dict[str, int]:
    """What a user asks of attributes, "Male" or "~Male", as {name: 1 or 0}.

    Raises:
        InputError: an attribute is unknown, or asked for and excluded at once.
    """
    known, found = {name.lower(): name for name in ATTRIBUTES}, {}
    for word in wanted:
        bare = word.lower().lstrip("~")
        near = difflib.get_close_matches(bare, known, n=1)
        hint = f"did you mean {known[near[0]]}? " if near else ""
        require(bare in known, f"{word!r} is no attribute: {hint}There are {', '.join(ATTRIBUTES)}; ~ negates one")
        value = int(not word.startswith("~"))
        require(found.get(known[bare], value) == value, f"{known[bare]} is asked for and excluded at once")
        found[known[bare]] = value
    return found


def called(attributes: Tensor) -> list[str]:
    """The attributes that examples (N, 18) have, by name."""
    return [
        " ".join(name for name, has in zip(ATTRIBUTES, row, strict=True) if has > 0.5) for row in attributes.tolist()
    ]


def _attributes(data_dir: Path, names: Sequence[str]) -> Tensor:
    """The 18 attributes (N, 18), 0 or 1, of all images, whose names must be those of the partition file."""
    path, again = _file(data_dir, "attributes"), "get both again (--download)"
    n, head, *lines = [*_lines(path), "", ""]
    lines, columns = [line.split() for line in lines if line], head.split()
    lacking = [name for name in ATTRIBUTES if name not in columns]
    require(not lacking, f"{path} lacks the attributes {', '.join(lacking)} in its second line: {again}")
    listed = [line[0] for line in lines]
    other = next((pair for pair in zip(listed, names, strict=False) if pair[0] != pair[1]), None)
    how = (
        f"{other[0]} stands where the other has {other[1]}" if other else f"{n}, {len(listed)} and {len(names)} images"
    )
    agree = other is None and len(listed) == len(names) and n.strip() == str(len(names))
    require(agree, f"{path} and {FILES['partition']} disagree ({how}): {again}")
    try:
        values = np.array([line[1:] for line in lines], dtype=np.int8)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} has lines of other values than -1 and 1: {again}") from error
    require(
        values.shape[1:] == (len(columns),) and bool((np.abs(values) == 1).all()),
        f"{path} has lines of other values than -1 and 1: {again}",
    )
    return torch.from_numpy(values[:, [columns.index(name) for name in ATTRIBUTES]] > 0).float()


def _folder(data_dir: Path) -> Path | None:
    folders = [data_dir / place / IMAGES for place in ("", "Img", "celeba")]
    return next((folder for folder in folders if folder.is_dir()), None)


def _file(data_dir: Path, kind: str) -> Path:
    return find(data_dir, _places(kind), SAYS_WHERE)


def _places(kind: str) -> list[str]:
    return [f"{place}{FILES[kind]}" for place in ("Anno/" if kind == "attributes" else "Eval/", "", "celeba/")]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): get it again (--download)") from error


def _fetch(data_dir: Path) -> None:
    """Download what is missing, into torchvision's layout, and unpack the images."""
    from common.data.torchvision_import import datasets

    known = {name: (file_id, md5) for file_id, md5, name in datasets.CelebA.file_list}
    missing = [FILES[kind] for kind in FILES if not any((data_dir / place).is_file() for place in _places(kind))]
    unpacked = _folder(data_dir) is not None
    if not unpacked and not (data_dir / ARCHIVE).is_file():
        missing.append(ARCHIVE)
    for name in missing:
        file_id, md5 = known[name]
        download([HOST + file_id], data_dir / name, md5)
    if not unpacked:
        unpack(data_dir / ARCHIVE, IMAGES)
