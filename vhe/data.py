"""Omniglot (Lake et al. 2015): handwritten characters of 50 alphabets; or the characters of the demo."""

import re
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from common.data.files import DataConfig, download, opened_zip, warn_of_left_out
from common.data.image_caches import in_mode, open_picture
from common.errors import InputError, require
from common.io import DOWNLOAD_AGAIN
from vhe.demo import N_ALPHABETS, N_CHARACTERS, draw_characters

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

SETS = {"train": "images_background", "test": "images_evaluation"}
URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
ARCHIVES = {  # md5
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
PAGE, SIZE = 105, 28  # height and width of a page in the files, and of an image in the data, in pixels
MAX_SIDE = 4096  # height or width of a user's image
DECODED_AT_ONCE = 100  # pages; more of them do not fit the cache
LONGEST_NAME = 200  # characters of an image's path in the files


class Characters(NamedTuple):
    """N images of handwritten characters.

    images: (N, 1, 28, 28) float32, 0 or 1; 1 is ink.
    character: the character of each image, (N,) int64, an index of `names`.
    alphabet: the alphabet of each image, (N,) int64, an index of `alphabets`.
    names: the names of the characters, such as "Greek/character01".
    alphabets: the names of the alphabets.
    ids: the ids of the images, such as "0394_01".
    """

    images: Tensor
    character: Tensor
    alphabet: Tensor
    names: tuple[str, ...]
    alphabets: tuple[str, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, images: Tensor, files: Sequence[str]) -> "Characters":
        """Number characters and alphabets of images (N, 1, 28, 28) by their files: "Greek/character01/0394_01.png"."""
        alphabet, alphabets = _numbered([_alphabet(file) for file in files])
        character, names = _numbered([_character(file) for file in files])
        return cls(images, character, alphabet, names, alphabets, tuple(Path(file).stem for file in files))

    def take(self, rows: slice | Tensor) -> "Characters":
        """Select images by their rows or a mask (N,); the remaining characters and alphabets are renumbered."""
        rows = torch.arange(len(self.ids))[rows]
        names, character = self.character[rows].unique(return_inverse=True)
        alphabets, alphabet = self.alphabet[rows].unique(return_inverse=True)
        return Characters(
            self.images[rows],
            character,
            alphabet,
            tuple(self.names[i] for i in names.tolist()),
            tuple(self.alphabets[i] for i in alphabets.tolist()),
            tuple(self.ids[i] for i in rows.tolist()),
        )

    def find(self, image_id: str) -> int:
        """Return the row of the image with this id; InputError if there is none."""
        require(
            image_id in self.ids,
            f"{image_id!r} is not an image of this split: its ids are like {self.ids[0]}, {self.ids[-1]}",
        )
        return self.ids.index(image_id)


def load(split: str, config: DataConfig, test_alphabets: Sequence[str] = ()) -> Characters:
    """Load a split of Omniglot.

    `shrink` makes images of 28 x 28 from pages of 105 x 105. This keeps the share of ink, 8 %, and breaks fewer than
    one stroke in 1000.

    Args:
        split: "train" (the background set: 30 alphabets, 964 characters of 20 images; the demo's 24 alphabets of 12) or
            "test" (the evaluation set: 20 alphabets, 659 characters of 20 images; the demo's 6 of 10).
        config: its data_dir holds images_background and images_evaluation, as .zip files or unpacked, or the folder
            omniglot-py with them, as torchvision leaves them. limit counts characters.
        test_alphabets: these alphabets of both sets make the test split instead, all others the training split.

    Raises:
        InputError: a file is missing or damaged, or an alphabet is unknown.
    """
    if config.demo:
        require(not test_alphabets, "--test-alphabets needs Omniglot: leave out either --test-alphabets or --demo")
        return _demo_characters(split, config.limit)
    sets = SETS.values() if test_alphabets else [SETS[split]]
    paths = [_find(config.data_dir, name, config.download) for name in sets]
    files = [(path, name) for path in paths for name in _names(path)]
    if test_alphabets:
        _check_alphabets(test_alphabets, list(dict.fromkeys(_alphabet(name) for _, name in files)))
        files = [file for file in files if (_alphabet(file[1]) in test_alphabets) == (split == "test")]
    kept = set(list(dict.fromkeys(_character(name) for _, name in files))[: config.limit])
    files = [file for file in files if _character(file[1]) in kept]
    images = [_images(path, [name for _, name in group]) for path, group in groupby(files, key=lambda file: file[0])]
    return Characters.of(torch.cat(images), [name for _, name in files])


def hold_out(characters: Characters, n_alphabets: int | None = None) -> tuple[Characters, Characters | None]:
    """Return the characters to train on, and those of the last alphabets, which choose the best model.

    Args:
        n_alphabets: the number of alphabets to hold out; a sixth of all by default. With 0 the second result is None.

    Raises:
        InputError: n_alphabets is negative, or leaves no alphabet to train on.
    """
    n = len(characters.alphabets)
    n_alphabets = min(max(1, n // 6), n - 1) if n_alphabets is None else n_alphabets
    require(
        0 <= n_alphabets < n,
        f"--valid must lie between 0 and {n - 1}, since there are {n} alphabets: it is {n_alphabets}",
    )
    held_out = characters.alphabet >= n - n_alphabets
    return characters.take(~held_out), characters.take(held_out) if n_alphabets else None


def decode(path: Path) -> Tensor:
    """Read an image file of any size as an image of the data: (1, 28, 28) float32, 0 or 1; 1 is ink.

    The paper's grey is the median of the border. A pixel is ink if it differs from that by more than half the largest
    difference. An image that is not square is padded with paper.

    Raises:
        InputError: the file is missing, unreadable or blank, or has too little ink.
    """
    with open_picture(path, "give another image file") as file:
        width, height = file.size
        small = max(width, height) <= MAX_SIDE
        require(small, f"{path} is {height} x {width} pixels, more than {MAX_SIDE} a side: give a smaller one")
        grey = torch.from_numpy(np.array(in_mode(file, "L"))).float()
    border = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    difference = (grey - border.median()).abs()
    require(bool(difference.max() > 0), f"{path} is blank: give an image of a character")
    height, width = grey.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    page = torch.zeros(1, side, side)
    page[0, top : top + height, left : left + width] = (difference > difference.max() / 2).float()
    image = shrink(page)
    require(bool(image.any()), f"{path} shows too little ink for {SIZE} x {SIZE} pixels: draw the character larger")
    return image


def shrink(pages: Tensor) -> Tensor:
    """Shrink square pages (N, S, S), 0 or 1, to 28 x 28: (N, 28, 28).

    A pixel is ink if at least half of its area is ink. On a page with strokes thinner than a pixel, half of the area
    that such a stroke covers of a pixel is enough. The width of the strokes is twice their area over their outline.
    """
    side = pages.shape[-1]
    # overlaps of old and new pixels, in units that make an old one 28 wide and a new one S, so that sums are exact
    overlap = torch.eye(SIZE).repeat_interleave(side, dim=1).reshape(SIZE, side, SIZE).sum(dim=-1)  # (28, S)
    paper = pad(pages, (1, 1, 1, 1))
    outline = sum(paper.diff(dim=dim).abs().sum(dim=(1, 2)) for dim in (1, 2))
    width = 2 * pages.sum(dim=(1, 2)) / outline * (SIZE / side)  # (N,); NaN for blank pages, which stay blank
    return (overlap @ pages @ overlap.T >= side**2 * width.clamp(max=1)[:, None, None] / 2).float()


def _numbered(names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Return the number of each name, (N,), in the order of their first appearance, and the different names."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names]), tuple(numbers)


def _alphabet(name: str) -> str:
    return name.split("/")[-3]


def _character(name: str) -> str:
    return "/".join(name.split("/")[-3:-1])


def _check_alphabets(test_alphabets: Sequence[str], known: Sequence[str]) -> None:
    for name in test_alphabets:
        require(name in known, f"--test-alphabets: Omniglot has no {name!r}; it has {', '.join(known)}")
    require(set(test_alphabets) != set(known), "--test-alphabets leaves no alphabet to train on: name fewer")


def _find(data_dir: Path, name: str, fetch: bool) -> Path:
    """Return the zip archive or folder of a set, downloaded if it is missing and `fetch` is set."""
    candidates = [data_dir / folder / f"{name}{suffix}" for suffix in (".zip", "") for folder in ("", "omniglot-py")]
    existing = [path for path in candidates if path.exists()]
    if fetch and not existing:
        download([f"{URL}/{name}.zip"], candidates[1], ARCHIVES[name])
        return candidates[1]
    require(
        bool(existing),
        f"{candidates[0]} is missing (as are {candidates[1]} and a folder {name}): --data-dir DIR says where it is,"
        " --download fetches it, --demo needs no files",
    )
    return existing[0]


def _names(path: Path) -> list[str]:
    """List the images of a set, a zip archive or a folder, in order: "images_background/Greek/character01/0394_01.png".

    The set's folder may lie in another one of its name. Names that begin with a dot are no data.
    """
    if path.suffix == ".zip":
        with opened_zip(path) as archive:
            files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    else:
        files = [file.relative_to(path.parent).as_posix() for file in path.rglob("*") if file.is_file()]
    files = [file for file in files if not re.search(r"(^|/)\.", file)]
    shown = [
        file for file in files if file.lower().endswith(".png") and file.isprintable() and len(file) < LONGEST_NAME
    ]
    paths = sorted(file.split("/") for file in shown)
    in_folders = [["/".join(x) for x in paths if x[:-3] == [path.stem] * depth] for depth in (1, 2)]
    names = in_folders[0] or in_folders[1]
    require(bool(names), f"{path} holds no images ALPHABET/CHARACTER/IMAGE.png: {DOWNLOAD_AGAIN}")
    warn_of_left_out(path, {*files} - {*names}, "images ALPHABET/CHARACTER/IMAGE.png")
    return names


def _images(path: Path, names: Sequence[str]) -> Tensor:
    """Read the named images of a set: (N, 1, 28, 28)."""
    images, zipped = [], path.suffix == ".zip"
    with opened_zip(path) if zipped else nullcontext() as archive:
        for start in range(0, len(names), DECODED_AT_ONCE):
            pages = [_page(path, archive, name) for name in names[start : start + DECODED_AT_ONCE]]
            images.append(shrink(torch.from_numpy(np.stack(pages)).float()))
    return torch.cat(images).unsqueeze(1)


def _page(path: Path, archive: zipfile.ZipFile | None, name: str) -> np.ndarray:
    """Read the page of an image: (105, 105) bool, whether there is ink."""
    source = archive.read(name) if archive else path.parent / name
    shown = f"{path}: {name}"
    with open_picture(source, DOWNLOAD_AGAIN, shown) as page:
        if page.size != (PAGE, PAGE):
            width, height = page.size
            raise InputError(f"{shown} is {height} x {width} pixels, not {PAGE} x {PAGE}: {DOWNLOAD_AGAIN}")
        return np.asarray(in_mode(page, "L")) < 128


def _demo_characters(split: str, limit: int | None) -> Characters:
    """Return the demo's characters of a split, with names and ids like Omniglot's."""
    images = draw_characters(split)  # (A, C, I, 28, 28)
    first = 0 if split == "train" else N_ALPHABETS["train"] * N_CHARACTERS["train"]
    n_alphabets, n_characters, n_images = images.shape[:3]
    files = [
        f"{split}{a + 1:02}/character{c + 1:02}/demo{first + a * n_characters + c + 1:04}_{i + 1:02}.png"
        for a in range(n_alphabets)
        for c in range(n_characters)
        for i in range(n_images)
    ]
    rows = slice(None if limit is None else limit * n_images)
    return Characters.of(images.reshape(-1, 1, SIZE, SIZE)[rows], files[rows])
