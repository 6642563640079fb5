"""The files of CUB-200-2011 and of its captions (Reed et al. 2016): which birds there are."""

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from common.data.files import download, unpack
from common.errors import InputError, require
from cub.demo import CAPTIONS

SUFFIXES = (".jpg", ".jpeg", ".png")
AUTHORS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}  # captions of all images of a split
IMAGES_DIR, TEXTS = Path("CUB_200_2011/images"), "text_c10"
CLASSES = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}
TEST_EVERY = 4  # captioned class, where no file says which are the test classes
ARCHIVE = "cub.zip"
URL = f"https://www.robots.ox.ac.uk/~yshi/mmdgm/datasets/{ARCHIVE}"
HOW = (
    f"unpack CUB_200_2011.tgz (https://data.caltech.edu/records/65de6-vp158) and the captions of Reed et al., {TEXTS}/ "
    f"with {' and '.join(CLASSES.values())} (https://github.com/reedscott/cvpr2016), into the data-dir, or the MMVAE "
    f"authors' {ARCHIVE}; --data-dir DIR says where they are, --demo needs no files"
)


@dataclass(kw_only=True)
class BirdOptions:
    """Where the birds are: the options that all scripts share."""

    GROUP: ClassVar = "data"

    images_dir: Path | None = None
    """in the original layout, the folder of the classes' folders of images, below the data-dir. Default:
    CUB_200_2011/images"""
    cache_dir: Path | None = None
    """folder of the caches: images at 64 x 64, words, features. Default: the data-dir"""


@dataclass
class Found:
    """Which birds there are.

    folder: of the images.
    names: {"train", "test", "uncaptioned": images of the split, relative to the folder, sorted}; uncaptioned are those
        of classes of which no image has captions.
    captions: {"train", "test": ten for each image, in the order of the names}.
    """

    folder: Path
    names: dict[str, list[str]]
    captions: dict[str, list[str]]


def find_birds(data_dir: Path, images_dir: Path | None = None) -> Found:
    """The images that there are, and their captions; no image is read.

    Two layouts are known, also in a folder cub/ of the data-dir: the MMVAE authors', text_trainvalclasses.txt and
    text_testclasses.txt (ten lines for each image, in the order of torchvision's ImageFolder) with train/CLASS/*.jpg
    and test/CLASS/*.jpg; and the original one, CUB_200_2011/images/CLASS/NAME.jpg with text_c10/CLASS/NAME.txt (ten
    lines). There trainvalclasses.txt and testclasses.txt say which classes are the test classes; where neither is,
    every fourth of those with captions is one, and a line on stderr says so.

    Args:
        images_dir: another folder of the original layout's images; captions of images that it lacks are left out.

    Raises:
        InputError: something is missing, damaged, or does not fit together.
    """
    places = [data_dir, data_dir / "cub"]
    root = next((x for x in places if (x / AUTHORS["train"]).is_file() or (x / TEXTS).is_dir()), data_dir)
    if images_dir is None and (root / AUTHORS["train"]).is_file():
        found = _find_authors(root)
    else:
        found = _find_original(root, images_dir or IMAGES_DIR)
    for split in CLASSES:
        require(len(found.names[split]) > 0, f"{found.folder} has no image with captions of a {split} class: {HOW}")
    return found


def fetch_birds(data_dir: Path) -> None:
    """Download the authors' archive and unpack its folder cub/, unless there are birds."""
    if any((folder / name).exists() for folder in (data_dir, data_dir / "cub") for name in (AUTHORS["train"], TEXTS)):
        return
    if not (data_dir / ARCHIVE).is_file():
        download([URL], data_dir / ARCHIVE, None, HOW)
    unpack(data_dir / ARCHIVE, "cub")


def _find_authors(root: Path) -> Found:
    names, captions = {"uncaptioned": []}, {}
    for split, text in AUTHORS.items():
        images = _images(root / split)
        names[split] = [f"{split}/{of_class}/{name}" for of_class in images for name in images[of_class]]
        captions[split] = _captions(root / text, len(names[split]))
    return Found(root, names, captions)


def _find_original(root: Path, images_dir: Path) -> Found:
    folder, texts = root / images_dir, root / TEXTS
    require(texts.is_dir(), f"{texts} is missing: {HOW}")
    images = _images(folder)
    captioned = [of_class for of_class in images if (texts / of_class).is_dir()]
    if any((root / name).is_file() for name in CLASSES.values()):
        lists = {split: {line.strip() for line in _lines(root / name)} for split, name in CLASSES.items()}
        for of_class in captioned:
            n = sum(of_class in classes for classes in lists.values())
            require(n == 1, f"{of_class} is in {n} of {' and '.join(CLASSES.values())}: it must be in one")
    else:
        lists = {"test": set(captioned[TEST_EVERY - 1 :: TEST_EVERY])}
        lists["train"] = set(captioned) - lists["test"]
    lists["uncaptioned"] = set(images) - set(captioned)
    names = {split: [f"{x}/{name}" for x in images if x in lists[split] for name in images[x]] for split in lists}
    captions = {split: [] for split in CLASSES}
    for split, found in captions.items():
        for name in names[split]:
            path = texts / f"{os.path.splitext(name)[0]}.txt"
            require(path.is_file(), f"{folder / name} has no captions: {path} is missing")
            found += _captions(path, 1)
    if not any((root / name).is_file() for name in CLASSES.values()):
        _say_once(f"no {CLASSES['test']} in {root}: every fourth of {len(captioned)} captioned classes is for tests")
    return Found(folder, names, captions)


def _images(folder: Path) -> dict[str, list[str]]:
    """The images of each class, {class: names}, both in ImageFolder's order."""
    require(folder.is_dir(), f"{folder} is missing: {HOW}")
    found = {}
    for of_class in sorted(os.listdir(folder)):
        if of_class.startswith(".") or not (folder / of_class).is_dir():
            continue
        found[of_class] = sorted(name for name in os.listdir(folder / of_class) if not name.startswith("."))
        for name in found[of_class]:
            require(name.lower().endswith(SUFFIXES), f"{folder / of_class / name} is no image: take it out of there")
    return found


def _captions(path: Path, n_images: int) -> list[str]:
    # Reed's files have bytes that are no UTF-8, or what came of them, in the place of blanks
    captions = [" ".join(line.replace("\ufffd", " ").split()) for line in _lines(path)]
    n = CAPTIONS * n_images
    while len(captions) > n and not captions[-1]:  # blank lines at the end
        captions.pop()
    require(len(captions) == n, f"{path} has {len(captions)} lines where {n} are needed, ten an image: get it again")
    for i, caption in enumerate(captions):
        require(caption != "", f"{path} has no caption in line {i + 1}: get it again")
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {HOW}") from error


@cache
def _say_once(message: str) -> None:
    print(message, file=sys.stderr)
