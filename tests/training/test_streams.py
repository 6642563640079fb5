from common.data import Examples, hold_out, mapped_rows, unpair
from common.errors import InputError
from mnist import train as mnist_train
from tests.helpers.runs import assert_same_run, config
from training import streams
from training.streams import Stream, feed, place

import numpy as np
import pytest
import torch

CPU = torch.device("cpu")
IMAGES = torch.randint(256, (23, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    return tmp_path / "images.npy"


def same(a, b):
    assert a.modalities.keys() == b.modalities.keys()
    assert all(x.equal(b.modalities[name]) for name, x in a.modalities.items())
    for x, y in ((a.mask, b.mask), (a.joint_only, b.joint_only)):
        assert y is None if x is None else x.equal(y)


def test_mapped_rows_are_those_of_the_file(path):
    rows = mapped_rows(path)
    assert rows.equal(IMAGES) and rows.dtype == torch.uint8
    train, valid = hold_out(Examples({"image": rows, "text": torch.arange(23)}), 6)
    same(valid[1:3], Examples({"image": IMAGES[18:20], "text": torch.tensor([18, 19])})[:])
    assert train.nbytes == 17 * (IMAGES[0].nbytes + 8)


def test_files_that_hold_no_rows_are_refused(path):
    damaged = r"is damaged or not an array that np.save wrote \(.*: write rows"
    for content, message in ((IMAGES[:0], "holds no values"), (IMAGES.double(), "holds values of type float64, not")):
        np.save(path, content.numpy())
        with pytest.raises(InputError, match=f"images.npy {message}"):
            mapped_rows(path)
    for content in (path.read_bytes()[:-1], b"no array"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"images.npy {damaged}"):
            mapped_rows(path)


def kinds(path):
    """As they are, paired by rows, in groups with a mask, with a derived modality, with absent ones, mapped."""
    text = torch.arange(23)
    whole = Examples({"image": IMAGES, "text": text})
    rows = {"image": torch.randperm(23).repeat(2), "text": torch.randperm(23).repeat(2)}
    derived = {"gray": ("image", lambda x: 1 - x)}
    return {
        "whole": whole,
        "rows": Examples(whole.modalities, rows),
        "groups": unpair(whole, 0.3, seed=0),
        "derived": Examples(whole.modalities, derived=derived),
        "mask": Examples(whole.modalities, mask=torch.rand(23, 2) < 0.5),
        "mapped": Examples({"image": mapped_rows(path), "text": text}).take(slice(2, None)),
    }


@pytest.mark.parametrize("kind", ["whole", "rows", "groups", "derived", "mask", "mapped"])
def test_streamed_batches_are_those_of_memory(path, kind):
    examples = kinds(path)[kind]
    batches = [*torch.randperm(len(examples)).split(4), torch.zeros(0, dtype=torch.int64), torch.tensor([3])]
    n = 0
    for index, (some, here) in zip(batches, feed(Stream(examples, CPU), batches), strict=True):
        same(some[here], examples[index])
        n += len(index)
    assert n == len(examples) + 1


def test_only_what_exceeds_memory_is_streamed(path, monkeypatch):
    examples = Examples({"image": mapped_rows(path)})
    monkeypatch.setattr(streams, "_memory", lambda device: 2 * IMAGES.nbytes)
    assert isinstance(place(examples, CPU), Examples)
    monkeypatch.setattr(streams, "_memory", lambda device: 2 * IMAGES.nbytes - 1)
    assert isinstance(place(examples, CPU), Stream)


def test_what_cannot_be_read_ends_the_stream(path):
    stream = Stream(Examples({"image": mapped_rows(path)}), CPU)
    with pytest.raises(IndexError):
        list(stream.feed([torch.tensor([0]), torch.tensor([23])]))


@pytest.mark.slow
def test_a_streamed_run_is_the_same_run(tmp_path, monkeypatch):
    mnist_train.main(config(tmp_path / "a", epochs=2, paired_fraction=0.5))
    monkeypatch.setattr(streams, "SHARE", 0.0)
    mnist_train.main(config(tmp_path / "b", epochs=2, paired_fraction=0.5))
    assert_same_run(tmp_path / "a", tmp_path / "b")
