"""The drawn birds of the demo: their attributes, captions, features, and who reads them."""

import math
import re

from common.errors import InputError
from common.io import load_tensors, save_tensors
from cub import classifier as readers
from cub import demo as birds
from cub import drawing
from cub.demo import agreement, describe, features, named
from cub.drawing import ATTRIBUTES, COLOURS, PIGMENTS, draw, random_attributes

import pytest
import torch

NAMES = list(ATTRIBUTES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def looks(attributes):
    return [{name: ATTRIBUTES[name][i] for name, i in zip(NAMES, row, strict=True)} for row in attributes.tolist()]


@pytest.fixture(scope="module")
def flock():
    return random_attributes(400, generator())


@pytest.fixture(scope="module")
def pictures(flock):
    return draw(flock, generator())


def test_captions_say_what_is_so_and_are_read_back_exactly(flock):
    captions = describe(flock, generator())
    assert len(captions) == 10 * len(flock)
    spoken = {word for values in birds.WORDS.values() for word in values}
    counts = []
    for caption, truth in zip(captions, [look for look in looks(flock) for _ in range(10)], strict=True):
        found, words = named(caption), re.findall(r"\w+|[^\w\s]", caption)
        assert found.items() <= truth.items(), caption
        assert len(found) == sum(word in spoken for word in words), f"as many values as are said: {caption}"
        assert caption == caption.lower() and 4 <= len(words) <= 31
        counts.append(len(found))
        i = len(counts) % len(words)
        assert named(" ".join(words[:i] + words[i + 1 :])).items() <= truth.items(), f"{caption} without {words[i]}"
    shares = torch.tensor(counts).bincount(minlength=6).double() / len(counts)
    binomial = torch.tensor([math.comb(5, n) * 0.8**n * 0.2 ** (5 - n) for n in range(6)])
    assert (shares - binomial).abs().max() < 0.03


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("This bird has wings that are AZURE and has a golden chest", {"wings": "blue", "belly": "yellow"}),
        ("its wings are blue and belly white", {"wings": "blue"}),
        ("its wings are blue and white belly", {"wings": "blue", "belly": "white"}),
        ("the bird is red with a short tiny beak <exc> <exc>", {"bill": "short"}),
        ("this bird with a red a crown black", {}),
        ("a tiny bird that has a tiny bill , and a big tail .", {"size": "small", "bill": "short"}),
        ("a breast that is and black wings", {"wings": "black"}),
        ("a red crown and a blue crown", {"crown": "red"}),
        ("", {}),
    ],
)
def test_captions_in_other_words(caption, expected):
    assert named(caption) == expected


def test_agreement_is_the_share_of_what_is_named_that_is_right():
    rows = torch.tensor([[COLOURS.index("red"), COLOURS.index("black"), COLOURS.index("white"), 1, 0, 0]])
    said = ["a small bird with a red crown and blue wings", "a bird with a long bill"]
    assert agreement(said, rows) == (0.75, 2.0)
    share, n = agreement(["a bird", "this"], rows)
    assert math.isnan(share) and n == 0


def test_features_are_correlograms_of_colours(pictures):
    found = features(pictures[:40])
    assert found.shape == (40, 2048) and found.dtype == torch.float32 and found.min() >= 0
    assert 0.3 < found.mean() < 0.5
    assert features(pictures[:40].float() / 255).equal(found)
    torch.testing.assert_close(features(pictures[:5].flip(-1)), found[:5])

    colours = torch.tensor([*PIGMENTS.values(), *drawing.SCENES, *drawing.HORNS], dtype=torch.float64)
    x = pictures[0].double() / 255
    shares = (-(x[None] - colours[:, :, None, None]).square().sum(dim=1) / 0.005).softmax(dim=0)  # (16, 64, 64)
    at = shares.permute(1, 2, 0)
    down = torch.stack([at[i, j].outer(at[i + 5, j]) for i in range(59) for j in range(64)]).mean(dim=0)
    aside = torch.stack([at[i, j].outer(at[i, j + 9]) for i in range(64) for j in range(55)]).mean(dim=0)
    both = 19 * torch.stack([down, (aside + aside.T) / 2]).sqrt()
    torch.testing.assert_close(found[0].view(8, 16, 16)[[1, 6]].double(), both, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_reader_learns_and_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(readers, "BIRDS", 400)
    monkeypatch.setattr(readers, "BATCH_SIZE", 16)
    monkeypatch.setitem(readers.EPOCHS, "feature", 6)
    cache = tmp_path / "new" / "reader.pt"
    network = readers.reader("feature", cache)
    attributes = random_attributes(150, generator(9))
    x = features(draw(attributes, generator(9)))
    found = readers.read(network, x)
    right = dict(zip(NAMES, (found == attributes).double().mean(dim=0).tolist(), strict=True))
    assert right["wings"] > 0.6 and right["belly"] > 0.4 and right["size"] > 0.65, right
    few = []
    monkeypatch.setattr(readers, "_train", lambda network, source, n: few.append(n))
    for limit in (7, 7000):
        readers.reader("feature", limit=limit)
    assert few == [7, 400]
    monkeypatch.setattr(readers, "draw", None)  # what is kept is not made again
    assert readers.read(readers.reader("feature", cache), x).equal(found)
    save_tensors(cache, load_tensors(cache, dict, "", "") | {"state_dict": {}})
    with pytest.raises(InputError, match="is damaged: it lacks 1.bias.*: delete it"):
        readers.reader("feature", cache)
