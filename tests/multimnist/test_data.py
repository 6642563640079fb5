import io
import math
import os

from common.errors import InputError
from mnist.data import FILES
from mnist.data import load as load_mnist
from multimnist import data, generate
from multimnist.data import FILL, SOS, DatasetOptions, load, make, names, parse
from multimnist.options import PAPER
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import idx, write_mnist
from tests.helpers.scripts import run_script

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SCANS, LABELS = (load_mnist("train", data_config("nowhere", demo=True)).modalities[name] for name in ("image", "text"))
SCANS = SCANS.squeeze(1)
ONE_EACH = torch.stack([SCANS[LABELS.tolist().index(digit)] for digit in range(10)])  # so that a text tells its image
FREE = {"fixed": False}


def shrunk(digits):
    """To 21 pixels, as the authors did it: with PIL."""
    small = [Image.fromarray(digit.numpy()).resize((21, 21), Image.BILINEAR) for digit in digits]
    return torch.from_numpy(np.stack([np.asarray(digit) for digit in small]))


def draw(n, digits=ONE_EACH, seed=0, **options):
    labels = torch.arange(len(digits))
    made = data.generate(digits, labels, n, DatasetOptions(**options), torch.Generator().manual_seed(seed))
    image, text = made.modalities["image"], made.modalities["text"]
    assert image.shape == (n, 1, 50, 50) and image.dtype == torch.uint8
    assert text.shape == (n, 4) and text.dtype == torch.int64
    return image.squeeze(1), text


def corners(images):
    """What lies in the corners of images (n, 50, 50) of fixed places: (n, 4, 21, 21), in reading order."""
    return torch.stack([images[:, y : y + 21, x : x + 21] for y, x in ((4, 4), (4, 23), (23, 4), (23, 23))], dim=1)


def read(images):
    """The texts (n, 4) that images of ONE_EACH in fixed places show, in reading order."""
    known = torch.cat([shrunk(ONE_EACH), torch.zeros(1, 21, 21, dtype=torch.uint8)])
    same = (corners(images)[:, :, None] == known).all(dim=(3, 4))  # (n, 4, 11)
    assert (same.sum(dim=2) == 1).all()
    return same.int().argmax(dim=2).masked_fill(same[:, :, 10], FILL)


def lengths(text):
    return (text != FILL).sum(dim=1)


def squares(*intensities):
    return torch.tensor(intensities, dtype=torch.uint8)[:, None, None].expand(-1, 28, 28)


def box(mask):
    """The first row and column and the height and width of what is true in masks (n, 50, 50)."""
    rows, columns = mask.any(dim=2).int(), mask.any(dim=1).int()
    return rows.argmax(dim=1), columns.argmax(dim=1), rows.sum(dim=1), columns.sum(dim=1)


def test_fixed_digits_fill_the_corners_in_reading_order_and_nothing_else():
    image, text = draw(500)
    assert read(image).equal(text)
    for picture, characters in zip(image, text, strict=True):
        expected = torch.zeros(50, 50, dtype=torch.uint8)
        for (y, x), digit in zip(((4, 4), (4, 23), (23, 4), (23, 23)), characters[characters != FILL], strict=False):
            expected[y : y + 21, x : x + 21] += shrunk(ONE_EACH[digit, None])[0]
        assert picture.equal(expected)


@pytest.mark.parametrize("options", [{}, FREE], ids=str)
def test_the_number_of_digits_and_the_digits_are_uniform(options):
    _, text = draw(3000, **options)
    expected, spread = 3000 / 5, math.sqrt(3000 * 0.2 * 0.8)
    assert (lengths(text).bincount(minlength=5) - expected).abs().max() < 4 * spread
    digits = text[text != FILL].bincount(minlength=10)
    assert len(digits) == 10
    if not options:  # free places favour some digits
        assert (digits - digits.sum() / 10).abs().max() < 4 * math.sqrt(digits.sum() * 0.09)


@pytest.mark.parametrize(("least", "most", "fixed"), [(0, 0, True), (2, 3, False), (4, 4, True)])
def test_no_image_has_fewer_or_more_digits_than_asked(least, most, fixed):
    image, text = draw(100, min_digits=least, max_digits=most, fixed=fixed)
    assert lengths(text).unique().tolist() == list(range(least, most + 1))
    assert image.flatten(1).any(dim=1).equal(lengths(text) > 0)


def test_free_digits_have_the_sizes_of_the_paper_and_lie_anywhere():
    n = 4000
    image, _ = draw(n, squares(200), min_digits=1, max_digits=1, **FREE)
    row, column, height, width = box(image > 0)
    assert height.equal(width) and image.sum(dim=(1, 2)).equal(200 * height**2), "whole squares"
    for size in range(17, 28):  # int(28 / scale) < size where scale > 28 / size
        smaller = 0.5 * math.erfc((28 / size - 1.3) / 0.1 / math.sqrt(2))
        spread = math.sqrt(smaller * (1 - smaller) / n)
        assert abs((height < size).float().mean() - smaller) < 4 * spread + 1e-3, size
    for place in (row, column):
        assert place.min() == 0 and (place == 50 - height).any(), "up to both edges"
        at = (place + 0.5) / (51 - height)  # uniform on (0, 1)
        assert abs(at.mean() - 0.5) < 0.02 and abs(at.var() - 1 / 12) < 0.005


def test_free_digits_are_whole_and_their_sum_stays_below_256():
    image, text = draw(1000, squares(130, 200), min_digits=2, max_digits=2, **FREE)
    for label, intensity in enumerate((130, 200)):
        once = (text == label).sum(dim=1) == 1
        assert once.sum() > 300
        _, _, height, width = box(image[once] == intensity)
        assert height.equal(width) and (image[once] == intensity).sum(dim=(1, 2)).equal(height**2)
    assert image.unique().tolist() == [0, 130, 200]
    image, _ = draw(1000, squares(127), min_digits=2, max_digits=2, **FREE)
    assert image.unique().tolist() == [0, 127, 254], "dark ones may overlap, as the authors' may"
    image, _ = draw(1000, squares(128), min_digits=2, max_digits=2, **FREE)
    assert image.unique().tolist() == [0, 128]


def test_fixed_digits_that_overlap_are_drawn_again():
    digits = squares(200, 0).clone()  # places share two rows or columns, which only the first one's pixels reach
    digits[1, 10:18, 10:18] = 200
    image, text = draw(500, digits, min_digits=2, max_digits=4)
    assert (text == 0).sum(dim=1).unique().tolist() == [0, 1]
    assert lengths(text).bincount(minlength=5)[2:].min() > 120, "the number of digits stays"
    assert image.max() == 200


def test_no_resize_keeps_the_pixels_and_no_translate_centres():
    image, text = draw(50, min_digits=1, max_digits=1, resize=False, translate=False, **FREE)
    expected = torch.zeros(50, 50, 50, dtype=torch.uint8)
    expected[:, 11:39, 11:39] = ONE_EACH[text[:, 0]]
    assert image.equal(expected)
    image, text = draw(200, max_digits=3, resize=False, **FREE)
    ink = torch.cat([ONE_EACH.sum(dim=(1, 2)), torch.zeros(2, dtype=torch.int64)])
    assert image.sum(dim=(1, 2)).equal(ink[text].sum(dim=1)), "nothing cut off, nothing over 255"
    image, _ = draw(500, squares(200), min_digits=1, max_digits=1, translate=False, **FREE)
    row, column, height, _ = box(image > 0)
    assert row.equal(column) and row.equal((50 - height) // 2) and len(height.unique()) > 5


def test_scrambled_texts_are_permutations_of_the_digits():
    image, text = draw(5000, scramble=True, repeat=False)
    shown = read(image)
    assert lengths(shown).equal(lengths(text)) and shown.sort(dim=1).values.equal(text.sort(dim=1).values)
    orders = (text[:, :, None] == shown[:, None, :]).int().argmax(dim=2)
    for n, permutations in ((2, 2), (3, 6), (4, 24)):
        these = orders[lengths(text) == n, :n]
        _, counts = these.unique(dim=0, return_counts=True)
        expected = len(these) / permutations
        assert len(counts) == permutations and (counts - expected).abs().max() < 4.5 * math.sqrt(expected)


def test_reversed_texts_are_half_of_all():
    image, text = draw(3000, reverse=True, repeat=False)
    shown = read(image)
    for n in (2, 3, 4):
        these = lengths(text) == n
        forwards = (text[these] == shown[these]).all(dim=1)
        backwards = (text[these, :n] == shown[these, :n].flip(1)).all(dim=1)
        assert (forwards ^ backwards).all() and abs(backwards.float().mean() - 0.5) < 0.1


def test_no_repeat_makes_all_digits_of_an_image_differ():
    def repeats(text):
        return sum(len(set(name)) < len(name) for name in names(text))

    assert repeats(draw(500, repeat=False)[1]) == 0
    assert repeats(draw(500)[1]) > 50


@pytest.fixture
def mnist_dir(tmp_path, monkeypatch):
    """A small MNIST, whose training and test digits differ; the splits made of it are small too."""
    monkeypatch.setattr(data, "N", {"train": 300, "test": 60})
    write_mnist(tmp_path / "mnist", images=SCANS[:100], labels=LABELS[:100])
    for name, array in zip(FILES["test"], (SCANS[100:150], LABELS[100:150]), strict=True):
        (tmp_path / "mnist" / f"{name}.gz").unlink()
        (tmp_path / "mnist" / name).write_bytes(idx(array))
    return tmp_path / "mnist"


def digits_shown(examples):
    """The digits in the corners, as bytes, and the labels that their texts give them."""
    image, text = examples.modalities["image"].squeeze(1), examples.modalities["text"]
    return as_bytes(corners(image)[text != FILL], text[text != FILL])


def as_bytes(digits, labels):
    return {(digit.numpy().tobytes(), int(label)) for digit, label in zip(digits, labels, strict=True)}


def of_these(digits, labels):
    return as_bytes(shrunk(digits), labels)


def test_the_cache_holds_each_split_made_of_its_own_digits(tmp_path, mnist_dir, capsys):
    path = make(mnist_dir, tmp_path / "new" / "data", PAPER)
    assert path == tmp_path / "new" / "data" / "multimnist.npz" and os.listdir(path.parent) == [path.name]
    train, test = (load(split, data_config(path.parent, PAPER)) for split in ("train", "test"))
    assert (len(train), len(test)) == (300, 60)
    assert train.modalities["image"].dtype == torch.uint8 and train.modalities["text"].dtype == torch.int64
    ours = digits_shown(train), digits_shown(test)
    assert ours[0] == of_these(SCANS[:100], LABELS[:100]), "all of them, and nothing else"
    assert ours[1] < of_these(SCANS[100:150], LABELS[100:150]) and len(ours[1]) > 40
    n_digits = [lengths(examples.modalities["text"])[:60] for examples in (train, test)]
    assert not n_digits[0].equal(n_digits[1]), "each split has its own random numbers"
    few = load("train", data_config(path.parent, PAPER, limit=7)).modalities
    assert all(x.equal(train.modalities[name][:7]) for name, x in few.items())
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert make(tmp_path / "none", path.parent, PAPER) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert capsys.readouterr().out == f"{path} exists already\n"
    for seed, same in ((data.SEED, True), (0, False)):
        other = make(mnist_dir, tmp_path / str(seed), PAPER, seed)
        assert (
            load("test", data_config(other.parent, PAPER)).modalities["image"].equal(test.modalities["image"]) == same
        )


def test_a_cache_of_other_options_is_refused(tmp_path, mnist_dir):
    two = DatasetOptions(max_digits=2, scramble=True)
    path = make(mnist_dir, tmp_path, two)
    assert lengths(load("test", data_config(tmp_path, PAPER, two)).modalities["text"]).max() == 2
    message = f"{path} was made with --max-digits 2 --scramble, not --max-digits 4 --no-scramble: give the same options"
    for call in (lambda: load("test", data_config(tmp_path, PAPER)), lambda: make(mnist_dir, tmp_path, PAPER)):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value).startswith(message) and "generate.py" in str(error.value)
    with pytest.raises(InputError, match="was made with --seed 681307, not --seed 5: .*--data-dir"):
        make(mnist_dir, tmp_path, two, 5)


def test_a_missing_cache_says_what_makes_it(tmp_path, mnist_dir):
    with pytest.raises(InputError) as error:
        load("train", data_config(tmp_path, PAPER, DatasetOptions(max_digits=2, **FREE)))
    assert str(error.value) == (
        f"{tmp_path}/multimnist.npz is missing: `python generate.py --mnist-dir DIR --data-dir {tmp_path} "
        "--max-digits 2 --no-fixed` makes it, --demo needs no files"
    )
    with pytest.raises(InputError, match=f"{tmp_path} holds no MNIST: --mnist-dir DIR says where it is, --download"):
        make(tmp_path, tmp_path, PAPER)
    (mnist_dir / FILES["test"][0]).unlink()
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte.gz is missing"):
        make(mnist_dir, tmp_path, PAPER)
    assert not (tmp_path / "multimnist.npz").exists()


def test_download_fetches_mnist_and_makes_the_cache(mnist_dir, tmp_path, monkeypatch, capsys):
    asked = []

    def fetching(split, data_dir, demo=False, download=False):
        asked.append((split, data_dir, download))
        return load_mnist(split, data_config(mnist_dir))

    monkeypatch.setattr(data, "digits", fetching)
    first, again = (load("test", data_config(tmp_path / "data", PAPER, download=True)).modalities for _ in range(2))
    assert asked == [(split, tmp_path / "data", True) for split in ("train", "test")], "once"
    assert capsys.readouterr().out == ""
    assert all(first[name].equal(again[name]) for name in first) and len(first["image"]) == 60


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def damaged(content, **changes):
    """A cache with other arrays."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    file = io.BytesIO()
    np.savez_compressed(file, **{name: x for name, x in {**arrays, **changes}.items() if x is not None})
    return file.getvalue()


def test_damaged_caches_are_named_and_run_no_code(tmp_path, mnist_dir, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    path = make(mnist_dir, tmp_path, PAPER)
    content = path.read_bytes()
    text = np.load(path)["test_text"]
    gap = np.full_like(text, FILL) - np.array([0, 0, 8, 0], dtype=np.uint8)
    not_digits = "holds texts of the split test that are not up to four digits"
    for changed, message in (
        (b"", "is damaged or"),
        (damaged(content, test_text=None), "is not a file in the archive"),
        (damaged(content, about=np.array("{}")), "was made with no --min-digits"),
        (damaged(content, test_text=text[1:]), r"test_text holds uint8 of shape .*, not uint8 of \(60, 4\)"),
        (damaged(content, test_text=np.full_like(text, SOS)), not_digits),
        (damaged(content, test_text=gap), not_digits),
        (damaged(content, test_text=np.array([Evil()], dtype=object)), "Object arrays cannot be loaded"),
        (damaged(content, about=np.array([Evil()], dtype=object)), "Object arrays cannot be loaded"),
    ):
        path.write_bytes(changed)
        for call in (lambda: load("test", data_config(tmp_path, PAPER)), lambda: make(mnist_dir, tmp_path, PAPER)):
            with pytest.raises(InputError, match=message) as error:
                call()
            assert str(error.value).startswith(str(path))
            assert "delete it and make it again with generate.py" in str(error.value)
    assert not (tmp_path / "evil").exists()


def test_the_demo_is_made_of_scanned_digits():
    train, test = (load(split, data_config("nowhere", PAPER, demo=True)) for split in ("train", "test"))
    assert (len(train), len(test)) == (3000, 500)
    assert digits_shown(train) <= of_these(SCANS, LABELS)
    held_out = load_mnist("test", data_config("nowhere", demo=True)).modalities
    assert digits_shown(test) <= of_these(held_out["image"].squeeze(1), held_out["text"])
    again = load("test", data_config("nowhere", PAPER, demo=True, limit=20)).modalities
    assert all(x.equal(test.modalities[name][:20]) for name, x in again.items())
    pairs = load("test", data_config("nowhere", PAPER, DatasetOptions(min_digits=2, max_digits=2), demo=True))
    assert (lengths(pairs.modalities["text"]) == 2).all()


@settings(max_examples=10, deadline=None)
@given(st.text("0123456789", max_size=4))
def test_texts_become_ids_and_back(text):
    ids = parse(text)
    assert ids.tolist() == [[*map(int, text), *[FILL] * (4 - len(text))]]
    assert ids.dtype == torch.int64 and names(ids) == [text]


def test_names_end_at_the_first_fill_and_show_what_is_no_digit():
    text = torch.tensor([[[1, 10, 3, 11], [11, 5, 5, 5]], [[10, 10, 10, 10], [9, 0, 11, 7]]])
    assert names(text) == ["1?3", "", "????", "90"]


def test_the_command_makes_what_its_options_say(tmp_path, mnist_dir):
    options = ("--no-fixed", "--max-digits", "2", "--seed", "3")
    run_script(generate, ["--mnist-dir", str(mnist_dir), "--data-dir", str(tmp_path), *options])
    assert (tmp_path / "multimnist.png").exists()
    chosen = DatasetOptions(max_digits=2, **FREE)
    made = load("train", data_config(tmp_path, PAPER, chosen))
    assert lengths(made.modalities["text"]).unique().tolist() == [0, 1, 2]
    again = load("train", data_config(make(mnist_dir, tmp_path / "again", chosen, seed=3).parent, PAPER, chosen))
    assert made.modalities["image"].equal(again.modalities["image"])


def test_digits_that_seldom_fit_are_drawn_until_they_do():
    """Three such squares have room in one of 105 draws; this seed needs more than a hundred."""
    digit = torch.zeros(1, 28, 28, dtype=torch.uint8)
    digit[:, 6:22, 6:22] = 200
    images, _ = draw(1, digit, seed=1, fixed=False, resize=False, min_digits=3, max_digits=3)
    assert (images == 200).sum() == 3 * 16**2


def test_digits_that_always_overlap_are_given_up(monkeypatch):
    monkeypatch.setattr(data, "MAX_FAILURES", 1000)
    with pytest.raises(InputError, match="leave no room for each other"):
        draw(5, squares(200, 200), min_digits=4)
