"""MATLAB 5 files of scipy's, and changed ones."""

import io
import struct

from common.data.arrays import Expected
from common.errors import InputError
from mnist_svhn import mat_files
from tests.helpers.small_files import mat

import numpy as np
import pytest
from scipy.io import loadmat, savemat

SHAPES = {"X": (32, 32, 3, 6), "y": (6, 1)}
EXPECTED = {name: Expected("|u1", shape) for name, shape in SHAPES.items()}


def read(tmp_path, content, expected=EXPECTED):
    (tmp_path / "a.mat").write_bytes(content)
    return mat_files.read(tmp_path / "a.mat", expected, "fetch it again")


@pytest.mark.parametrize("compressed", [False, True])
def test_values_are_those_that_scipy_reads(tmp_path, compressed):
    content = mat(compressed)
    theirs, ours = loadmat(io.BytesIO(content)), read(tmp_path, content)
    for name, shape in SHAPES.items():
        assert ours[name].shape == shape and np.array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("n", [4, 5, 1000])
def test_vectors_of_any_length_and_other_variables(tmp_path, compressed, n):
    """Up to four bytes are stored in the tag; other variables stand before and after."""
    values, file = np.arange(n, dtype=np.uint8)[:, None], io.BytesIO()
    others = {"text": "a", "cell": np.array([1, "b"], dtype=object), "big": np.random.default_rng(0).random(10_000)}
    savemat(file, {**others, "labels_of_images": values, "last": 1j}, do_compression=compressed)
    (ours,) = read(tmp_path, file.getvalue(), {"labels_of_images": Expected("|u1", (range(1, 2000), 1))}).values()
    assert np.array_equal(ours, values)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, compressed):
    content = mat(compressed)
    for length in [*range(0, len(content), 97), len(content) - 1]:
        with pytest.raises(InputError, match=r"a.mat (is damaged or not a MATLAB 5 file|lacks)"):
            read(tmp_path, content[:length])


def test_another_version_or_byte_order_is_refused(tmp_path):
    content = mat(False)
    for end in (b"\x00\x02IM", b"\x01\x00MI"):
        with pytest.raises(InputError, match="it has another header"):
            read(tmp_path, content[:124] + end + content[128:])


def test_lengths_that_contradict_each_other_are_refused(tmp_path):
    content = mat(False)
    dimensions = content.index(struct.pack("<4i", *SHAPES["X"]))
    for n in (7, -1, 2**31 - 1):
        changed = content[: dimensions + 12] + struct.pack("<i", n) + content[dimensions + 16 :]
        with pytest.raises(InputError, match="is damaged or not a MATLAB 5 file|holds uint8 of"):
            read(tmp_path, changed, {"X": Expected("|u1", (32, 32, 3, range(100))), "y": EXPECTED["y"]})
