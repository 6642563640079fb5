import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.linear_model import Ridge
from torch.nn.functional import avg_pool2d, max_pool2d

import celeba.demo
from celeba.attributes import ATTRIBUTES
from celeba.demo import draw_with_masks, random_attributes

COLOURS = {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
TEXTURES = {"Straight_Hair", "Wavy_Hair"}
EXCLUDED = {name: COLOURS - {name} | {"Bald"} for name in COLOURS}  # what nobody has who has the attribute
EXCLUDED |= {name: TEXTURES - {name} | {"Bald"} for name in TEXTURES}
EXCLUDED |= {"Bald": COLOURS | TEXTURES | {"Bangs", "Receding_Hairline", "Wearing_Hat"}}
EXCLUDED |= {"Bangs": {"Bald", "Receding_Hairline", "Wearing_Hat"}}
EXCLUDED |= {"Receding_Hairline": {"Bald", "Bangs", "Wearing_Hat"}}
EXCLUDED |= {"Wearing_Hat": {"Bald", "Bangs", "Receding_Hairline"}}
MOVES_LANDMARKS = {"Bushy_Eyebrows", "Heavy_Makeup", "Male", "Mouth_Slightly_Open", "Smiling"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def column(attributes, name):
    return attributes[:, ATTRIBUTES.index(name)]


@pytest.fixture(scope="module")
def people():
    return random_attributes(5000, generator())


@pytest.fixture(scope="module")
def portraits(people):
    return draw_with_masks(people[:1200], generator())


def toggled(people, name, n=40):
    """Faces and masks of the same n people without and with the attribute; what excludes it, they have neither way."""
    fitting = people[column(people, "Male") == 1] if name == "Mustache" else people
    on = fitting[:n].clone()
    on[:, [ATTRIBUTES.index(other) for other in EXCLUDED.get(name, ())]] = 0
    off = on.clone()
    on[:, ATTRIBUTES.index(name)], off[:, ATTRIBUTES.index(name)] = 1, 0
    return *draw_with_masks(off, generator()), *draw_with_masks(on, generator())


def change(off, on):
    """How much each pixel differs: (N, 64, 64), of 255."""
    return (on.float() - off.float()).abs().mean(dim=1)


def test_people_are_drawn_from_the_generator_alone(people):
    assert people.shape == (5000, 18) and people.dtype == torch.int64 and people.unique().tolist() == [0, 1]
    torch.manual_seed(1)
    assert random_attributes(5000, generator()).equal(people)
    assert not random_attributes(5000, generator(1)).equal(people)
    assert random_attributes(1, generator()).shape == (1, 18)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_are_neither_rare_nor_determined(people, name):
    has = column(people, name).bool()
    assert 0.07 < has.float().mean() < 0.6
    for other in EXCLUDED.get(name, ()):
        assert not (has & column(people, other).bool()).any()
    if name == "Mustache":
        assert column(people, "Male")[has].all()
    others = people.clone()
    others[:, ATTRIBUTES.index(name)] = 0
    twins = {tuple(row) for row in others[has].tolist()} & {tuple(row) for row in others[~has].tolist()}
    assert len(twins) > 10, "people who have all other attributes in common"


def test_attributes_depend_on_each_other_as_people_have_them(people):
    correlation = np.corrcoef(people.T.numpy())

    def between(a, b):
        return correlation[ATTRIBUTES.index(a), ATTRIBUTES.index(b)]

    for a, b in (("Bald", "Male"), ("Receding_Hairline", "Male"), ("Mouth_Slightly_Open", "Smiling")):
        assert between(a, b) > 0.1
    for a, b in (("Heavy_Makeup", "Male"), ("Blond_Hair", "Male"), ("Mustache", "Heavy_Makeup")):
        assert between(a, b) < -0.1


@pytest.mark.slow
def test_faces_are_drawn_from_the_generator_alone(people, portraits, monkeypatch):
    people, (faces, masks) = people[:70], (pictures[:70] for pictures in portraits)
    assert faces.shape == (70, 3, 64, 64) and faces.dtype == torch.uint8
    assert masks.shape == (70, 1, 64, 64) and masks.dtype == torch.uint8 and masks.unique().tolist() == [0, 255]
    torch.manual_seed(1)
    assert draw_with_masks(people, generator())[0].equal(faces)
    assert torch.initial_seed() == 1 and torch.rand(1).equal(torch.rand(1, generator=generator(1)))
    assert (draw_with_masks(people, generator(1))[0] != faces).flatten(1).any(dim=1).all()
    assert len(draw_with_masks(people[:1].expand(70, -1), generator())[0].unique(dim=0)) == 70
    monkeypatch.setattr(celeba.demo, "BATCH", 9)
    again, same = draw_with_masks(people[:40], generator())
    assert (again.int() - faces[:40].int()).abs().max() <= 1, "but for rounding, whatever is drawn at once"
    assert (same != masks[:40]).float().mean() < 1e-4


@pytest.mark.slow
def test_faces_vary_in_light_colour_and_contrast(portraits):
    faces = portraits[0].float()
    grey = faces.mean(dim=(1, 2, 3))
    assert grey.std() > 20 and grey.min() > 20 and grey.max() < 235
    assert faces.amin(dim=(1, 2, 3)).median() < 40 and faces.amax(dim=(1, 2, 3)).median() > 180
    assert faces.std(dim=0).min() > 30, "no pixel is about the same in all"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "first", "last"),  # the mean change over the picture, and the rows where 90 % of it is
    [
        ("Bald", 4, 0, 56),
        ("Bangs", 1, 6, 32),
        ("Black_Hair", 4, 0, 52),
        ("Blond_Hair", 4, 0, 52),
        ("Brown_Hair", 3, 0, 52),
        ("Bushy_Eyebrows", 0.3, 14, 36),
        ("Eyeglasses", 0.8, 18, 44),
        ("Gray_Hair", 4, 0, 52),
        ("Heavy_Makeup", 0.7, 20, 56),
        ("Male", 3, 0, 64),
        ("Mouth_Slightly_Open", 0.3, 34, 58),
        ("Mustache", 0.3, 32, 54),
        ("Pale_Skin", 8, 4, 64),
        ("Receding_Hairline", 0.5, 0, 32),
        ("Smiling", 0.4, 22, 58),
        ("Straight_Hair", 1.2, 0, 56),
        ("Wavy_Hair", 1.2, 0, 56),
        ("Wearing_Hat", 4, 0, 32),
    ],
)
def test_every_attribute_is_seen_where_it_belongs_and_nowhere_else(people, name, least, first, last):
    off, off_masks, on, on_masks = toggled(people, name)
    changed = change(off, on)
    assert changed.mean() > least and changed.mean(dim=(1, 2)).min() > 0.05
    assert changed[:, first:last].sum() > 0.9 * changed.sum()
    assert changed[:, 0, [0, -1]].max() == 0, "the same background, light and grain"
    if name in MOVES_LANDMARKS:
        assert (on_masks != off_masks).flatten(1).any(dim=1).float().mean() > 0.5
    else:
        assert on_masks.equal(off_masks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bushy_Eyebrows", "Mouth_Slightly_Open"])
def test_masks_lie_on_the_parts(people, name):
    off, off_masks, on, on_masks = toggled(people, name, n=400)
    parts = torch.maximum(off_masks, on_masks)[:, 0].float()
    near = max_pool2d(parts, 5, stride=1, padding=2) > 0
    changed = change(off, on)
    shares = (changed * near).sum(dim=(1, 2)) / changed.sum(dim=(1, 2))
    moves = column(people[:400], "Mustache").bool()  # with the mouth, and is not in the mask
    assert shares[~moves].min() > 0.8 and shares[moves].min() > 0.65
    assert (on_masks[:, 0] > 0).float().mean() > 1.05 * (off_masks[:, 0] > 0).float().mean(), "thicker, or open"


@pytest.mark.slow
def test_masks_show_the_parts_and_their_pose(portraits):
    lit = portraits[1][:, 0] > 0
    area = lit.float().mean(dim=(1, 2))
    assert area.min() > 0.02 and area.max() < 0.12
    row, col = (lit.float().sum(dim=dim) @ torch.arange(64.0) / lit.sum(dim=(1, 2)) for dim in (2, 1))
    assert row.std() > 1.2 and col.std() > 1 and (row - 36).abs().max() < 12 and (col - 32).abs().max() < 16
    counts = np.array([ndimage.label(mask, np.ones((3, 3)))[1] for mask in lit[:200].numpy()])
    assert np.median(counts) == 7 and counts.min() > 2, "brows, eyes, nose, mouth and jaw; some touch"
    bottom = 63 - lit.flip(1).any(dim=2).long().argmax(dim=1)
    jaw = []
    for mask, last in zip(lit, bottom.tolist(), strict=True):
        column = mask[: last + 1, mask[last].nonzero().median()].flip(0).long()
        jaw.append(int(column.argmin()))
    assert 1.8 < np.mean(jaw) < 2.3, "2 pixels wide"


@pytest.mark.slow
def test_a_linear_reader_of_pixels_learns_something_but_not_all(people, portraits):
    x, y = avg_pool2d(portraits[0].float() / 255, 4).flatten(1).numpy(), people[: len(portraits[0])].numpy()
    guesses = Ridge(alpha=10).fit(x[:900], y[:900]).predict(x[900:]) > 0.5
    right, base = (guesses == y[900:]).mean(), np.maximum(y.mean(axis=0), 1 - y.mean(axis=0)).mean()
    assert base < 0.75 and base + 0.1 < right < 0.9
