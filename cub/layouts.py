"""Find the files of CUB-200-2011 and of its captions (Reed et al. 2016), in either of their two layouts."""

import os
from dataclasses import dataclass
from pathlib import Path

from common.data.files import inner, read_text, unpack
from common.errors import require
from common.progress import print_once
from cub.demo import CAPTIONS

SUFFIXES = (".jpg", ".jpeg", ".png")
AUTHORS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}  # one file of captions for each split
PHOTOGRAPHS, TEXTS = "CUB_200_2011", "text_c10"
CLASSES = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}
TEST_EVERY = 4  # without class lists, every fourth captioned class is a test class
ARCHIVE = "cub.zip"
HOW = (
    f"unpack CUB_200_2011.tgz (https://data.caltech.edu/records/65de6-vp158) and the captions of Reed et al., {TEXTS}/ "
    f"with {' and '.join(CLASSES.values())} (https://github.com/reedscott/cvpr2016), into the data-dir, or the MMVAE "
    f"authors' {ARCHIVE}; give their folder with --data-dir DIR, or use --demo, which needs no files"
)


@dataclass
class BirdFiles:
    """Image files and captions of each split.

    folder: the folder of the images.
    names: {"train", "test", "uncaptioned": image paths relative to the folder, sorted}; "uncaptioned" holds the images
        of classes without captions.
    captions: {"train", "test": ten captions for each image, in the order of the names}.
    """

    folder: Path
    names: dict[str, list[str]]
    captions: dict[str, list[str]]


def find_birds(data_dir: Path, images_dir: Path | None = None) -> BirdFiles:
    """List the images and captions of each split, without reading an image.

    The data-dir, or its folder cub/, may have either layout:
    - the MMVAE authors': train/CLASS/*.jpg and test/CLASS/*.jpg, with text_trainvalclasses.txt and
      text_testclasses.txt (ten lines for each image, in the order of torchvision's ImageFolder);
    - the original one: CUB_200_2011/images/CLASS/NAME.jpg with text_c10/CLASS/NAME.txt (ten lines). The files
      trainvalclasses.txt and testclasses.txt list the classes of each split. If neither exists, every fourth captioned
      class is a test class, and a line on stderr says so.

    Args:
        images_dir: another folder of images in the original layout; captions without an image there are left out.

    Raises:
        InputError: a file or folder is missing or damaged, or images and captions do not match.
    """
    require(
        images_dir is None or not images_dir.is_absolute(),
        f"--images-dir {images_dir}: give the folder's path below --data-dir {data_dir}",
    )
    roots = [data_dir, inner(data_dir / "cub")]
    root = next((x for x in roots if (x / AUTHORS["train"]).is_file() or (x / TEXTS).is_dir()), data_dir)
    if images_dir is None and (root / AUTHORS["train"]).is_file():
        files = _find_authors(root)
    else:
        files = _find_original(root, root / images_dir if images_dir else inner(root / PHOTOGRAPHS) / "images")
    for split in CLASSES:
        require(len(files.names[split]) > 0, f"{files.folder} has no image with captions of a {split} class: {HOW}")
    return files


def unpack_birds(data_dir: Path) -> None:
    """Unpack the authors' archive into the data-dir's folder cub/ if it lies there, unless the folder exists."""
    if (data_dir / ARCHIVE).is_file():
        unpack(data_dir / ARCHIVE, "cub")


def _find_authors(root: Path) -> BirdFiles:
    """Files of the MMVAE authors' layout."""
    names, captions = {"uncaptioned": []}, {}
    for split, text in AUTHORS.items():
        images = _images(root / split)
        names[split] = [f"{split}/{label}/{name}" for label in images for name in images[label]]
        captions[split] = _captions(root / text, len(names[split]))
    return BirdFiles(root, names, captions)


def _find_original(root: Path, folder: Path) -> BirdFiles:
    """Files of the original layout, whose images lie in the folder."""
    texts = inner(root / TEXTS)
    require(texts.is_dir(), f"{texts} is missing: {HOW}")
    images = _images(folder)
    captioned = [label for label in images if (texts / label).is_dir()]
    has_lists = any((root / name).is_file() for name in CLASSES.values())
    every_fourth = captioned[TEST_EVERY - 1 :: TEST_EVERY]
    unlisted = {"train": set(captioned) - set(every_fourth), "test": set(every_fourth)}
    classes = _listed_classes(root, captioned) if has_lists else unlisted
    classes["uncaptioned"] = set(images) - set(captioned)
    names = {
        split: [f"{x}/{name}" for x in images if x in labels for name in images[x]] for split, labels in classes.items()
    }
    captions = {split: _captions_of_images(folder, names[split], texts) for split in CLASSES}
    if not has_lists:
        print_once(
            f"no {CLASSES['test']} in {root}: every fourth of the {len(captioned)} captioned classes is a test class"
        )
    return BirdFiles(folder, names, captions)


def _listed_classes(root: Path, captioned: list[str]) -> dict[str, set[str]]:
    """Classes of each split from the files trainvalclasses.txt and testclasses.txt: {split: class names}."""
    classes = {split: {line.strip() for line in _lines(root / name)} for split, name in CLASSES.items()}
    for label in captioned:
        n = sum(label in labels for labels in classes.values())
        require(n == 1, f"{label} is in {n} of {' and '.join(CLASSES.values())}: list it in exactly one of them")
    return classes


def _images(folder: Path) -> dict[str, list[str]]:
    """File names of the images of each class, {class: names}, both in the order of torchvision's ImageFolder."""
    require(folder.is_dir(), f"{folder} is missing: {HOW}")
    images = {}
    for label in sorted(os.listdir(folder)):
        if label.startswith(".") or not (folder / label).is_dir():
            continue
        images[label] = sorted(name for name in os.listdir(folder / label) if not name.startswith("."))
        for name in images[label]:
            require(
                name.lower().endswith(SUFFIXES),
                f"{folder / label / name} is not an image ({', '.join(SUFFIXES)}): remove it",
            )
    return images


def _captions_of_images(folder: Path, names: list[str], texts: Path) -> list[str]:
    """Ten captions of each image, from one text file per image."""
    captions = []
    for name in names:
        path = texts / f"{os.path.splitext(name)[0]}.txt"
        require(path.is_file(), f"{folder / name} has no captions: {path} is missing, add it or remove the image")
        captions += _captions(path, 1)
    return captions


def _captions(path: Path, n_images: int) -> list[str]:
    """Captions of a text file, one a line, ten for each image."""
    # in Reed's files some blanks are invalid UTF-8, or replacement characters
    captions = [" ".join(line.replace("\ufffd", " ").split()) for line in _lines(path)]
    n = CAPTIONS * n_images
    while len(captions) > n and not captions[-1]:  # blank lines at the end
        captions.pop()
    require(len(captions) == n, f"{path} has {len(captions)} lines instead of {n}, ten per image: download it again")
    for i, caption in enumerate(captions):
        require(caption != "", f"{path} has no caption in line {i + 1}: download it again")
    return captions


def _lines(path: Path) -> list[str]:
    """Lines of a text file; bytes that are not UTF-8 become replacement characters."""
    return read_text(path, HOW, errors="replace").removesuffix("\n").split("\n")
