import numpy as np
import pytest
import torch

from common.data import Examples, Shards, Stream, hold_out, streams, unpair
from common.data.streams import feed, place
from common.errors import InputError
from mnist import train as mnist_train
from tests.helpers.runs import assert_same_run, config

CPU = torch.device("cpu")
IMAGES = torch.randint(256, (23, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIZES = (10, 1, 12)


def write(folder, parts):
    paths = [folder / f"{i}.npy" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part.numpy())
    return paths


@pytest.fixture
def paths(tmp_path):
    return write(tmp_path, IMAGES.split(SIZES))


def same(a, b):
    assert a.modalities.keys() == b.modalities.keys()
    assert all(x.equal(b.modalities[name]) for name, x in a.modalities.items())
    for x, y in ((a.mask, b.mask), (a.joint_only, b.joint_only)):
        assert y is None if x is None else x.equal(y)


def test_shards_are_the_rows_of_their_files_one_after_the_other(paths):
    x = Shards(paths)
    assert (len(x), x.shape, x.dtype, x.nbytes) == (23, IMAGES.shape, torch.uint8, IMAGES.nbytes)
    rows = torch.randperm(23)
    assert x[rows].equal(IMAGES[rows]) and x[torch.tensor([9, 10, 10, 11])].equal(IMAGES[[9, 10, 10, 11]])
    assert x[3:15:2].equal(IMAGES[3:15:2]) and x[:].equal(IMAGES)
    assert len(x[torch.zeros(0, dtype=torch.int64)]) == 0
    with pytest.raises(IndexError):
        x[torch.tensor([23])]


def test_parts_of_shards_are_not_read(paths, monkeypatch):
    examples = Examples({"image": Shards(paths), "text": torch.arange(23)})
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "__getitem__", None)
        train, valid = hold_out(examples.take(slice(20)), 6)
        train = train.take(torch.tensor([13, 0]))
    assert (len(train), len(valid)) == (2, 6)
    same(train[:], Examples({"image": IMAGES[[13, 0]], "text": torch.tensor([13, 0])})[:])
    same(valid[1:3], Examples({"image": IMAGES[15:17], "text": torch.tensor([15, 16])})[:])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            [IMAGES[:2], IMAGES[:2].long()],
            r"1.npy has int64 rows of shape \(1, 4, 4\), .*0.npy has uint8 rows of shape \(1, 4, 4\)",
        ),
        ([IMAGES[:2], IMAGES[:2, 0]], r"1.npy has uint8 rows of shape \(4, 4\)"),
        ([IMAGES[:0]], "0.npy holds no values"),
        ([torch.tensor(3)], "0.npy holds a single number: write rows"),
        ([IMAGES[:2].double()], "0.npy holds values of type float64, not uint8 or int64 or float32"),
    ],
)
def test_shards_that_are_not_alike_are_named(tmp_path, parts, says):
    with pytest.raises(InputError, match=says):
        Shards(write(tmp_path, parts))


def test_shards_of_numbers(tmp_path):
    labels = Shards(write(tmp_path, [torch.arange(5), torch.arange(5, 7)]))
    assert labels[:].tolist() == list(range(7))


def test_damaged_shards_are_named(tmp_path, paths):
    (tmp_path / "text.npy").write_text("no array")
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    for path, message in (
        (tmp_path / "none.npy", "is missing"),
        (tmp_path / "text.npy", "is damaged or not an array that np.save wrote"),
        (paths[1], "is damaged or not an array that np.save wrote"),
    ):
        with pytest.raises(InputError, match=f"{path.name} {message}"):
            Shards([path])
    with pytest.raises(InputError, match="Shards need at least one file"):
        Shards([])


def kinds(paths):
    """As they are, paired by rows, in groups with a mask, with a derived modality, with absent ones, of shards."""
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
        "shards": Examples({"image": Shards(paths), "text": text}).take(slice(2, None)),
    }


@pytest.mark.parametrize("kind", ["whole", "rows", "groups", "derived", "mask", "shards"])
def test_streamed_batches_are_those_of_memory(paths, kind):
    examples = kinds(paths)[kind]
    batches = [*torch.randperm(len(examples)).split(4), torch.zeros(0, dtype=torch.int64), torch.tensor([3])]
    n = 0
    for index, (some, here) in zip(batches, feed(Stream(examples, CPU), batches), strict=True):
        same(some[here], examples[index])
        n += len(index)
    assert n == len(examples) + 1


def test_only_what_exceeds_memory_is_streamed(paths, monkeypatch):
    examples = Examples({"image": Shards(paths)})
    monkeypatch.setattr(streams, "_memory", lambda device: 2 * IMAGES.nbytes)
    assert isinstance(place(examples, CPU), Examples)
    monkeypatch.setattr(streams, "_memory", lambda device: 2 * IMAGES.nbytes - 1)
    assert isinstance(place(examples, CPU), Stream)


def test_of_shards_a_device_gets_the_split_alone(paths):
    part = Examples({"image": Shards(paths)}).take(slice(5, 16)).take(torch.arange(0, 11, 2))
    assert part.nbytes == 6 * IMAGES[0].nbytes
    assert part[:].modalities["image"].equal(IMAGES[5:16:2].float() / 255)
    assert part.to(torch.device("meta")).modalities["image"].shape == (6, *IMAGES.shape[1:])


def test_what_cannot_be_read_ends_the_stream(paths):
    stream = Stream(Examples({"image": Shards(paths)}), CPU)
    with pytest.raises(IndexError):
        list(stream.feed([torch.tensor([0]), torch.tensor([23])]))


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_streamed_run_is_the_same_run(tmp_path, monkeypatch, fraction):
    mnist_train.main(config(tmp_path / "a", epochs=2, paired_fraction=fraction))
    monkeypatch.setattr(streams, "SHARE", 0.0)
    mnist_train.main(config(tmp_path / "b", epochs=2, paired_fraction=fraction))
    assert_same_run(tmp_path / "a", tmp_path / "b")
