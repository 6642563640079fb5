"""Omniglot (Lake et al. 2015): handwritten characters of 50 alphabets; drawn ones for the demo."""

import difflib
import io
import struct
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import pad

from common.errors import InputError, require
from common.files import ZIP_DAMAGE, download
from vhe import strokes

SETS = {"train": "images_background", "test": "images_evaluation"}
PAGE, SIZE = 105, 28  # pixels that a page is high and wide, and what is made of it
# what PIL and zipfile raise
UNREADABLE = (*ZIP_DAMAGE, OSError, ValueError, LookupError, SyntaxError, struct.error, Image.DecompressionBombError)
DECODED_AT_ONCE = 100  # more of them leave the cache
AGAIN = "get it again (--download)"


class Characters(NamedTuple):
    """N images of handwritten characters.

    images: (N, 1, 28, 28) float32, 0 or 1; 1 is ink.
    character: (N,) int64, one of the names; alphabet: (N,) int64, one of the alphabets.
    names: of the characters, "Greek/character01"; alphabets: their names; ids: of the images, "0394_01".
    """

    images: Tensor
    character: Tensor
    alphabet: Tensor
    names: tuple[str, ...]
    alphabets: tuple[str, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(cls, images: Tensor, files: Sequence[str]) -> "Characters":
        """Images (N, 1, 28, 28), numbered by their files: "Greek/character01/0394_01.png"."""
        alphabet, alphabets = _numbered([_alphabet(file) for file in files])
        character, names = _numbered([_character(file) for file in files])
        return cls(images, character, alphabet, names, alphabets, tuple(Path(file).stem for file in files))

    def take(self, rows: slice | Tensor) -> "Characters":
        """Some of the images, by their rows or a mask (N,); what is left of characters and alphabets is renumbered."""
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
        """The row of the image with this id; InputError if there is none."""
        require(
            image_id in self.ids,
            f"{image_id!r} is no image of this split: its ids are like {self.ids[0]}, {self.ids[-1]}",
        )
        return self.ids.index(image_id)


def load(
    split: str,
    data_dir: Path,
    demo: bool = False,
    fetch: bool = False,
    limit: int | None = None,
    test_alphabets: Sequence[str] = (),
) -> Characters:
    """A split of Omniglot.

    Pages of 105 x 105 become 28 x 28 as `shrink` says. That keeps the share of ink, 8 %, and breaks no stroke in 1000.

    Args:
        split: "train" (the background set: 30 alphabets, 964 characters of 20 images) or "test" (the evaluation set:
            20, 659).
        data_dir: holds images_background and images_evaluation, as .zip or unpacked; or omniglot-py does, below it, as
            torchvision leaves them.
        demo: drawn characters instead, 24 alphabets of 12 and 6 of 10.
        fetch: download missing files.
        limit: only the first so many characters.
        test_alphabets: these alphabets of both sets are the test split instead, all others the training split.

    Raises:
        InputError: a file is missing or damaged, or an alphabet unknown.
    """
    if demo:
        require(not test_alphabets, "--test-alphabets are Omniglot's: leave them or --demo away")
        return _drawn(split, limit)
    sets = SETS.values() if test_alphabets else [SETS[split]]
    files = [(path, name) for path in [_find(data_dir, name, fetch) for name in sets] for name in _names(path)]
    if test_alphabets:
        _check_alphabets(test_alphabets, list(dict.fromkeys(_alphabet(name) for _, name in files)))
        files = [file for file in files if (_alphabet(file[1]) in test_alphabets) == (split == "test")]
    kept = set(list(dict.fromkeys(_character(name) for _, name in files))[:limit])
    files = [file for file in files if _character(file[1]) in kept]
    images = [_images(path, [name for _, name in some]) for path, some in groupby(files, key=lambda file: file[0])]
    return Characters.of(torch.cat(images), [name for _, name in files])


def hold_out(characters: Characters, n_alphabets: int | None = None) -> tuple[Characters, Characters | None]:
    """Characters to train on, and those of the last alphabets to choose the best model by.

    Args:
        n_alphabets: how many; a sixth of them by default; none for 0.

    Raises:
        InputError: more than there are, or all.
    """
    n = len(characters.alphabets)
    n_alphabets = min(max(1, n // 6), n - 1) if n_alphabets is None else n_alphabets
    require(
        0 <= n_alphabets < n, f"--valid must lie between 0 and {n - 1}, as there are {n} alphabets: it is {n_alphabets}"
    )
    held_out = characters.alphabet >= n - n_alphabets
    return characters.take(~held_out), characters.take(held_out) if n_alphabets else None


def decode(path: Path) -> Tensor:
    """An image file, of any size, as the model knows them: (1, 28, 28) float32, 0 or 1; 1 is ink.

    The median grey of the border is the paper's; ink is nearer to the grey that differs most from it. What is not
    square gets more paper.

    Raises:
        InputError: it is missing, unreadable or blank, or has too little ink.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            grey = upright if upright.mode.startswith(("I", "F")) else upright.convert("L")
            grey = torch.from_numpy(np.asarray(grey).astype(np.float32))  # (H, W)
    except UNREADABLE as error:
        raise InputError(f"{path} is missing or no readable image: give an image file") from error
    border = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    differs = (grey - border.median()).abs()
    require(bool(differs.max() > 0), f"{path} is blank: give an image of a character")
    side = max(differs.shape)
    page = torch.zeros(1, side, side)
    top, left = ((side - n) // 2 for n in differs.shape)
    page[0, top : top + differs.shape[0], left : left + differs.shape[1]] = (differs > differs.max() / 2).float()
    image = shrink(page)
    require(bool(image.any()), f"{path} shows too little ink for {SIZE} x {SIZE} pixels: draw the character larger")
    return image


def shrink(pages: Tensor) -> Tensor:
    """Square pages (N, S, S), 0 or 1, at 28 x 28: (N, 28, 28).

    A pixel is ink where at least half of its area is; on pages of strokes thinner than a pixel, half of what such a
    stroke covers of it. Strokes are as wide as twice their area over their outline.
    """
    side = pages.shape[-1]
    # of a pixel each way in units of which it has S and a pixel of the page 28, so that all sums are exact
    overlap = torch.eye(SIZE).repeat_interleave(side, dim=1).reshape(SIZE, side, SIZE).sum(dim=-1)  # (28, S)
    paper = pad(pages, (1, 1, 1, 1))
    outline = sum(paper.diff(dim=dim).abs().sum(dim=(1, 2)) for dim in (1, 2))
    width = 2 * pages.sum(dim=(1, 2)) / outline * (SIZE / side)  # (N,); NaN of blank pages, which stay blank
    return (overlap @ pages @ overlap.T >= side**2 * width.clamp(max=1)[:, None, None] / 2).float()


def _numbered(names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names]), tuple(numbers)


def _alphabet(name: str) -> str:
    return name.split("/")[0]


def _character(name: str) -> str:
    return name.rsplit("/", 1)[0]


def _check_alphabets(wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        require(name in known, f"--test-alphabets: Omniglot has no {name!r}; it has {', '.join(near)}")
    require(set(wanted) != set(known), "--test-alphabets leaves no alphabet to train on")


def _find(data_dir: Path, name: str, fetch: bool) -> Path:
    candidates = [data_dir / folder / f"{name}{suffix}" for suffix in (".zip", "") for folder in ("", "omniglot-py")]
    found = [path for path in candidates if path.exists()]
    if fetch and not found:
        from common.torchvision_import import datasets

        known = datasets.Omniglot
        download([f"{known.download_url_prefix}/{name}.zip"], candidates[1], known.zips_md5[name])
        return candidates[1]
    require(
        bool(found),
        f"{candidates[0]} is missing (nor is there {candidates[1]}, nor a folder {name}): --data-dir DIR says where it"
        " is, --download fetches it, --demo needs no files",
    )
    return found[0]


def _names(path: Path) -> list[str]:
    """The images of a set, a zip archive or a folder, in order: "Greek/character01/0394_01.png"."""
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                files = archive.namelist()
        except UNREADABLE as error:
            raise InputError(f"{path} is damaged ({error}): delete it and {AGAIN}") from error
    else:
        files = [file.relative_to(path.parent).as_posix() for file in path.glob("*/*/*.png")]
    parts = sorted(file.split("/") for file in files if file.endswith(".png"))
    names = ["/".join(rest) for top, *rest in parts if top == path.stem and len(rest) == 3]
    require(bool(names), f"{path} holds no images ALPHABET/CHARACTER/IMAGE.png: delete it and {AGAIN}")
    return names


def _images(path: Path, names: Sequence[str]) -> Tensor:
    """The named images of a set: (N, 1, 28, 28)."""
    images = []
    with zipfile.ZipFile(path) if path.suffix == ".zip" else nullcontext() as archive:
        for start in range(0, len(names), DECODED_AT_ONCE):
            pages = [_page(path, archive, name) for name in names[start : start + DECODED_AT_ONCE]]
            images.append(shrink(torch.from_numpy(np.stack(pages)).float()))
    return torch.cat(images).unsqueeze(1)


def _page(path: Path, archive: zipfile.ZipFile | None, name: str) -> np.ndarray:
    """(105, 105) bool, whether there is ink."""
    try:
        content = archive.read(f"{path.stem}/{name}") if archive else (path / name).read_bytes()
        page = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    except UNREADABLE as error:
        raise InputError(f"{path}: {name} is damaged ({error}): delete {path.name} and {AGAIN}") from error
    height, width = page.shape
    require(height == width == PAGE, f"{path}: {name} is {height} x {width} pixels, not {PAGE} x {PAGE}: {AGAIN}")
    return page < 128


def _drawn(split: str, limit: int | None) -> Characters:
    images = strokes.demo(split)  # (A, C, I, 28, 28)
    first = 0 if split == "train" else strokes.N_ALPHABETS["train"] * strokes.N_CHARACTERS["train"]
    n_alphabets, n, times = images.shape[:3]
    files = [
        f"{split}{a + 1:02}/character{c + 1:02}/demo{first + a * n + c + 1:04}_{i + 1:02}.png"
        for a in range(n_alphabets)
        for c in range(n)
        for i in range(times)
    ]
    rows = slice(None if limit is None else limit * times)
    return Characters.of(images.reshape(-1, 1, SIZE, SIZE)[rows], files[rows])
