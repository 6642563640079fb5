"""Captions as words, CUB's files in both layouts, and what the scripts load of them."""

import json
import shutil
from pathlib import Path

import cub.data
import cub.layouts
from common.data import image_caches
from common.data.torchvision_import import datasets, transforms
from common.errors import InputError
from common.progress import print_once
from cub import demo as birds
from cub.captions import LENGTH, SPECIAL, Vocabulary, read_vocabulary, words
from cub.data import load, load_train
from cub.layouts import CLASSES, find_birds
from cub.options import BirdOptions
from tests.helpers.cub_files import CAPTIONED, IMAGES, caption, write_cub, write_image
from tests.helpers.data_config import data_config

import pytest
import torch
from PIL import Image

OPTIONS = BirdOptions()


def write_authors(root, n_test=2):
    """The MMVAE authors' layout, whose captions follow the images in the order of torchvision's ImageFolder."""
    for split, text, n in (("train", "text_trainvalclasses.txt", 3), ("test", "text_testclasses.txt", n_test)):
        # in an order of their own: upper case before lower, 10 before 2
        for i in range(n):
            for of_class in ("b.One", "B.Two"):
                write_image(root / split / of_class / f"{(2, 10, 1)[i]}.jpg", i + 10 * (of_class == "b.One"))
        found = [Path(path) for path, _ in datasets.ImageFolder(str(root / split)).samples]
        (root / text).write_text("".join(f"{p.parent.name} {p.stem} number {k}\n" for p in found for k in range(10)))
    return root


def test_captions_are_split_as_the_authors_do():
    assert words("This bird's belly is white, its Wings aren't.") == [
        *("this", "bird", "'s", "belly", "is", "white", ",", "its", "wings", "are", "n't", ".")
    ]
    two = words("it has a grey belly. its bill is 2.5 inches (long)..")
    assert " ".join(two) == "it has a grey belly . its bill is 2.5 inches ( long ) ..", "periods end sentences"
    assert words("  ") == []


def test_words_seen_often_enough_are_numbered_as_they_first_occur():
    captions = ["Rare blue bird.", "blue bird, blue", "red bird.", "red blue bird.", "red red bird . rare rare"]
    vocabulary = Vocabulary.of(captions)
    assert vocabulary.words == [*SPECIAL, "blue", "bird", ".", "red"], "4, 5, 4 and 4 times; rare is seen 3 times"
    assert Vocabulary.of(captions, min_occ=2).words == [*SPECIAL, "rare", *vocabulary.words[3:]]
    assert Vocabulary.of([words(text) for text in captions]).words == vocabulary.words
    assert len(vocabulary) == 7 and vocabulary.unknown("A rare, blue bird") == ["a", "rare", ","]
    assert Vocabulary.of(["<pad>"] * 5).words == [*SPECIAL, "<", "pad", ">"]


def test_captions_become_32_numbers():
    vocabulary = Vocabulary([*SPECIAL, "a", "bird", "."])
    ids = vocabulary.encode(["A bird.", "no bird", " ".join(["a"] * 30 + ["bird"] + ["."] * 3), ["a", "A", "bird"]])
    assert ids.shape == (4, 32) and ids.dtype == torch.int64
    assert ids[0].tolist() == [3, 4, 5, 2] + [1] * 28
    assert ids[1].tolist() == [0, 4, 2] + [1] * 29
    assert ids[2].tolist() == [3] * 30 + [4, 2], "the first 31 words and <eos>"
    assert ids[3].tolist() == [3, 0, 4, 2] + [1] * 28, "words are taken as they are"
    assert vocabulary.encode([]).shape == (0, 32)
    assert vocabulary.sentences(ids[:2]) == ["a bird.", "<exc> bird"]


def test_numbers_become_sentences():
    text = "the bird's wings are black, it isn't \"small\" (nor big); its bill is 4x as long."
    vocabulary = Vocabulary.of([text] * 4)
    ids = vocabulary.encode([text])
    assert vocabulary.sentences(ids) == [text]
    bird = vocabulary.ids["bird"]
    made = torch.full((3, LENGTH), bird)
    made[0, 2:4] = torch.tensor([1, 2])  # padding inside, and more words after the end
    made[1, 0] = 2
    assert vocabulary.sentences(made) == ["bird bird", "", " ".join(["bird"] * 32)], "and one without an end"


def files_of(*classes):
    return [f"{name}/bird_{i}.jpg" for name in classes for i in range(IMAGES[name])]


def test_every_fourth_captioned_class_is_a_test_class(tmp_path, capsys):
    print_once.cache_clear()
    found = find_birds(write_cub(tmp_path))
    assert found.folder == tmp_path / "CUB_200_2011/images"
    assert found.names["train"] == files_of("a.One", "b.Two", "c.Three", "f.Five")
    assert found.names["test"] == files_of("e.Four")
    assert found.names["uncaptioned"] == files_of("d.None", "g.None")
    assert found.captions["test"] == [caption("e.Four", i, k) for i in range(2) for k in range(10)]
    assert found.captions["train"][30:32] == [caption("b.Two", 0, k) for k in range(2)]
    find_birds(tmp_path)
    assert capsys.readouterr().err.count("every fourth of the 5 captioned classes is a test class") == 1
    for name in ("a.One/of_another_set.txt", "z.Other/bird.txt"):  # captions of other images
        (tmp_path / "text_c10" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "text_c10" / name).write_text("one line alone")
    shutil.move(tmp_path / "CUB_200_2011", tmp_path / "crops")
    for name, classes in zip(
        CLASSES.values(), [["b.Two", "c.Three", "f.Five", "z.Absent", ""], ["a.One", "e.Four"]], strict=True
    ):
        (tmp_path / name).write_text("\n".join(classes))
    listed = find_birds(tmp_path, Path("crops/images"))
    assert (listed.names["train"], listed.names["test"]) == (
        files_of("b.Two", "c.Three", "f.Five"),
        files_of("a.One", "e.Four"),
    )
    assert capsys.readouterr().err == "" and listed.captions["test"][30:] == found.captions["test"]


def test_captions_are_cleaned(tmp_path):
    path = write_cub(tmp_path) / "text_c10/e.Four/bird_0.txt"
    lines = [f"a bird {k}" for k in range(10)]
    path.write_bytes(
        "\r\n".join([" A\ufffd\ufffdtiny\u00a0bird  with\ta bill\x85", *lines[1:], "", ""]).encode() + b" \n"
    )
    assert find_birds(tmp_path).captions["test"][:10] == ["A tiny bird with a bill", *lines[1:]]
    path.write_bytes(b"a\xcabird\n" + "\n".join(lines[1:]).encode())
    assert find_birds(tmp_path).captions["test"][:2] == ["a bird", "a bird 1"]


def test_the_authors_layout_is_in_the_order_of_their_image_folder(tmp_path):
    found = find_birds(write_authors(tmp_path / "cub").parent)
    assert found.folder == tmp_path / "cub" and found.names["uncaptioned"] == []
    assert found.names["train"] == [f"train/{c}/{i}.jpg" for c in ("B.Two", "b.One") for i in ("1", "10", "2")]
    for split, names in found.names.items():
        for i, name in enumerate(names):
            of_class, stem = Path(name).parent.name, Path(name).stem
            assert found.captions[split][10 * i : 10 * i + 10] == [f"{of_class} {stem} number {k}" for k in range(10)]
    (tmp_path / "cub" / "test" / "B.Two" / ".DS_Store").write_bytes(b"")
    assert find_birds(tmp_path / "cub").names == found.names


def test_the_authors_archive_is_unpacked_where_it_lies(tmp_path):
    expected = find_birds(write_authors(tmp_path / "whole" / "cub").parent)
    (tmp_path / "data").mkdir()
    shutil.make_archive(tmp_path / "data" / "cub", "zip", tmp_path / "whole", "cub")
    with pytest.raises(InputError, match=r"text_c10 is missing: unpack .*, or the MMVAE authors' cub.zip"):
        load("train", data_config(tmp_path / "data", OPTIONS))
    birds = load("train", data_config(tmp_path / "data", OPTIONS, download=True))
    assert birds.captions == expected.captions["train"]
    with pytest.raises(InputError, match="or the MMVAE authors' cub.zip; give their folder"):
        load("train", data_config(tmp_path / "none", OPTIONS, download=True))


def test_files_as_people_have_them_are_read(tmp_path):
    lists = {"trainvalclasses.txt": CAPTIONED[1:], "testclasses.txt": CAPTIONED[:1]}
    expected = find_birds(write_cub(tmp_path / "whole", lists=lists))
    root = write_cub(tmp_path / "data", "CUB_200_2011/CUB_200_2011/images", lists)
    (root / "text_c10").rename(tmp_path / "text_c10")
    (root / "text_c10").mkdir()
    (tmp_path / "text_c10").rename(root / "text_c10/text_c10")
    for path in (*(root / name for name in lists), *root.rglob("bird_*.txt")):
        path.write_text(path.read_text(), "utf-8-sig")
    found = find_birds(root)
    assert (found.names, found.captions) == (expected.names, expected.captions)


def test_images_are_paired_with_their_captions(tmp_path):
    squashed = transforms.Compose([transforms.Resize([64, 64]), transforms.PILToTensor()])
    train = load("train", data_config(write_cub(tmp_path), OPTIONS))
    test = load("test", data_config(tmp_path, OPTIONS), vocabulary=train.vocabulary)
    for birds_, classes in ((train, [0, 0, 0, 1, 1, 2, 4]), (test, [3, 3])):
        assert birds_.class_names == CAPTIONED and birds_.classes.tolist() == classes
        expected = torch.stack([squashed(Image.open(path)) for path in birds_.files])
        images, ids = birds_.examples.modalities.values()
        assert list(birds_.examples.modalities) == ["image", "caption"] and images.equal(expected)
        n = len(classes)
        assert images.shape == (n, 3, 64, 64) and images.dtype == torch.uint8 and ids.shape == (10 * n, 32)
        assert ids.equal(train.vocabulary.encode(birds_.captions)) and len(birds_.examples) == 10 * n
        rows = torch.tensor([10 * n - 1, 3, 10, 4])
        batch = birds_.examples[rows].modalities
        assert batch["image"].equal(expected[rows // 10].float() / 255) and batch["caption"].equal(ids[rows])
    words_ = ["this", "bird", "has", "a", "red", "belly", ",", "it", "is", "number", "0", "of", "image", "in"]
    assert train.vocabulary.words[:17] == [*SPECIAL, *words_], "One is seen 30 times and comes next"
    assert train.vocabulary.words[17] == "one" and "four" not in train.vocabulary.ids
    assert load("test", data_config(tmp_path, OPTIONS)).vocabulary.words == train.vocabulary.words
    assert train.captions[21] == caption("a.One", 2, 1) and train.files[2].name == "bird_2.jpg"


def test_what_is_made_is_kept(tmp_path, monkeypatch):
    options = BirdOptions(cache_dir=tmp_path / "cache")
    first = load("train", data_config(write_cub(tmp_path / "data"), options))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["CUB_200_2011", "text_c10"]
    monkeypatch.setattr(image_caches, "decode", None)
    monkeypatch.setattr(cub.data, "words", None)
    again = load("train", data_config(tmp_path / "data", options))
    assert again.vocabulary.words == first.vocabulary.words
    for name, x in first.examples.modalities.items():
        assert again.examples.modalities[name].equal(x)
    monkeypatch.undo()
    text = tmp_path / "data/text_c10/a.One/bird_0.txt"
    text.write_text(text.read_text().replace("this bird has", "new words here"))
    changed = load("train", data_config(tmp_path / "data", options))
    assert changed.vocabulary.words[3:6] == ["new", "words", "here"], "other captions are split anew"


def test_features_come_beside_their_images(tmp_path, monkeypatch):
    asked = []

    def load_features(found, split, cache_dir):
        asked.append((found.names[split], cache_dir))
        return torch.arange(2.0)[:, None].expand(2, 2048)

    options = BirdOptions(cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="run features.py with the same --data-dir"):
        load("test", data_config(write_cub(tmp_path), options), source="feature")
    assert not [*tmp_path.rglob("cub_test_64_*")], "the photographs are not decoded before"
    monkeypatch.setattr(cub.data, "load_features", load_features)
    found = load("test", data_config(tmp_path, options), source="feature").examples
    assert asked == [(files_of("e.Four"), tmp_path / "cache")]
    assert found[torch.tensor([3, 12, 19])].modalities["feature"][:, 7].tolist() == [0, 1, 1]
    assert list(found.rows) == ["image", "feature", "caption"]


def test_the_last_images_are_held_out_with_their_captions(tmp_path):
    whole = load("train", data_config(write_cub(tmp_path), OPTIONS))
    for limit, valid, n, n_valid in ((None, 2, 5, 2), (6, 2, 4, 2), (None, 0, 7, 0)):
        train, held_out = load_train(data_config(tmp_path, OPTIONS, limit=limit, valid=valid))
        assert len(train.classes) == len(train.files) == n and len(train.captions) == len(train.examples) == 10 * n
        assert train.vocabulary.words == whole.vocabulary.words, "whatever the limit"
        assert train.examples.modalities["image"].equal(whole.examples.modalities["image"][:n])
        assert (held_out is None) == (n_valid == 0)
        if held_out:
            assert held_out.captions == whole.captions[10 * n : 10 * n + 20]
            assert held_out.files == whole.files[n : n + 2] and held_out.classes.equal(whole.classes[n : n + 2])
            batch, same = held_out.examples[[13]].modalities, whole.examples[[10 * n + 13]].modalities
            assert all(batch[name].equal(same[name]) for name in same)
    train, valid = load_train(data_config(Path("absent"), OPTIONS, demo=True, limit=40))
    assert len(train.classes) == 36 and len(valid.classes) == 4, "a tenth by default"


def test_drawn_birds_are_paired_with_their_captions_and_features():
    train, test = (load(split, data_config("", OPTIONS, demo=True, limit=30)) for split in ("train", "test"))
    assert train.vocabulary.words == test.vocabulary.words
    images, captions, attributes = birds.demo("test", 30)
    assert test.examples.modalities["image"].equal(images) and test.captions == captions
    assert test.attributes.equal(attributes) and test.classes.equal(attributes[:, 0])
    assert (test.examples.modalities["caption"] > 0).all(), "no word is unknown"
    features = load("test", data_config("", OPTIONS, demo=True, limit=20), "feature", Vocabulary(SPECIAL))
    assert features.examples.modalities["feature"].equal(birds.features(images[:20]))
    assert features.examples.modalities["caption"][:, 0].eq(0).all() and len(features[:3].attributes) == 3


def authors_vocabulary(n=5):
    ordered = [*SPECIAL, "bird", "schön"][:n]
    return {"w2i": {word: i for i, word in enumerate(ordered)}, "i2w": {str(i): word for i, word in enumerate(ordered)}}


def test_the_authors_vocabulary_is_read_and_another_one_refused(tmp_path):
    path = tmp_path / "cub.vocab"
    path.write_bytes(json.dumps(authors_vocabulary(), ensure_ascii=False).encode())
    assert read_vocabulary(path).words == [*SPECIAL, "bird", "schön"]
    for content, message in (
        (b'{"w2i": {"<ex', "is damaged, "),
        (b'{"w2i": {}, "i2w": {"0": {}}}', "is damaged, "),
        (json.dumps(authors_vocabulary(2)).encode(), "lacks"),
        (json.dumps(authors_vocabulary() | {"w2i": authors_vocabulary(4)["w2i"]}).encode(), "contradicts itself"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"cub.vocab .*{message}.*cub.vocab that the authors"):
            read_vocabulary(path)
    for given, message in (
        (["a", *SPECIAL], "begins with <exc>, <pad>, <eos>"),
        ([*SPECIAL, "a", "b", "a"], "twice"),
    ):
        with pytest.raises(InputError, match=message):
            Vocabulary(given)


def edit(path, change):
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


CAPTIONS_OF_ONE = "text_c10/a.One/bird_2.txt"


@pytest.mark.parametrize(
    ("write", "harm", "message"),
    [
        (
            write_cub,
            lambda d: (d / "text_c10/e.Four/bird_1.txt").unlink(),
            "e.Four/bird_1.jpg has no captions: .*bird_1.txt is mis",
        ),
        (write_cub, lambda d: edit(d / CAPTIONS_OF_ONE, lambda x: x[:9]), "bird_2.txt has 9 lines instead of 10"),
        (
            write_cub,
            lambda d: edit(d / CAPTIONS_OF_ONE, lambda x: [*x[:4], " \ufffd ", *x[5:]]),
            "a.One/bird_2.txt has no caption in line 5",
        ),
        (write_cub, lambda d: (d / "CUB_200_2011/images/d.None/a.txt").touch(), "d.None/a.txt is not an image"),
        (
            write_cub,
            lambda d: [(d / name).write_text("\n".join(CAPTIONED)) for name in CLASSES.values()],
            "a.One is in 2 of trainvalclasses.txt and testclasses.txt",
        ),
        (
            write_cub,
            lambda d: [(d / name).write_text("\n".join(CAPTIONED) * i) for i, name in enumerate(CLASSES.values())],
            "no image with captions of a train class",
        ),
        (
            write_authors,
            lambda d: (d / "test/b.One/1.jpg").touch(),
            "text_testclasses.txt has 40 lines instead of 50",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path, write, harm, message):
    harm(write(tmp_path))
    with pytest.raises(InputError, match=message) as error:
        find_birds(tmp_path)
    assert "\n" not in str(error.value)
