"""Drawn faces: each attribute shows where it belongs; for the rest see tests/common/data/test_demo_sets.py."""

import celeba.demo
from celeba.attributes import ATTRIBUTES
from celeba.demo import draw_with_masks, random_attributes

import pytest
import torch
from torch.nn.functional import max_pool2d

COLOURS = {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
TEXTURES = {"Straight_Hair", "Wavy_Hair"}
EXCLUDED = {name: COLOURS - {name} | {"Bald"} for name in COLOURS}  # what nobody has who has the attribute
EXCLUDED |= {name: TEXTURES - {name} | {"Bald"} for name in TEXTURES}
EXCLUDED |= {"Bald": COLOURS | TEXTURES | {"Bangs", "Receding_Hairline", "Wearing_Hat"}}
EXCLUDED |= {"Bangs": {"Bald", "Receding_Hairline", "Wearing_Hat"}}
EXCLUDED |= {"Receding_Hairline": {"Bald", "Bangs", "Wearing_Hat"}}
EXCLUDED |= {"Wearing_Hat": {"Bald", "Bangs", "Receding_Hairline"}}
MOVES_LANDMARKS = {"Bushy_Eyebrows", "Heavy_Makeup", "Male", "Mouth_Slightly_Open", "Smiling"}
# the mean change over the picture at least, of 255, and the rows where 90 % of it is
SHOWN = {
    **dict.fromkeys(("Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"), (3, 0, 56)),
    **dict.fromkeys(("Straight_Hair", "Wavy_Hair"), (1.2, 0, 56)),
    "Bangs": (1, 6, 32),
    "Receding_Hairline": (0.5, 0, 32),
    "Wearing_Hat": (4, 0, 32),
    "Bushy_Eyebrows": (0.3, 14, 36),
    "Eyeglasses": (0.8, 18, 44),
    "Heavy_Makeup": (0.7, 20, 56),
    "Smiling": (0.4, 22, 58),
    "Mouth_Slightly_Open": (0.3, 34, 58),
    "Mustache": (0.3, 32, 54),
    "Male": (3, 0, 64),
    "Pale_Skin": (8, 4, 64),
}


def generator():
    return torch.Generator().manual_seed(0)


def column(attributes, name):
    return attributes[:, ATTRIBUTES.index(name)]


@pytest.fixture(scope="module")
def people():
    return random_attributes(2000, generator())


def toggled(people, name, n=30):
    """Faces and masks of the same n people without and with the attribute; what excludes it, they have neither way."""
    fitting = people[column(people, "Male") == 1] if name == "Mustache" else people
    on = fitting[:n].clone()
    on[:, [ATTRIBUTES.index(other) for other in EXCLUDED.get(name, ())]] = 0
    off = on.clone()
    on[:, ATTRIBUTES.index(name)], off[:, ATTRIBUTES.index(name)] = 1, 0
    (faces, masks), (changed, changed_masks) = (draw_with_masks(x, generator()) for x in (off, on))
    return (changed.float() - faces.float()).abs().mean(dim=1), masks, changed_masks  # change (N, 64, 64), of 255


def test_attributes_are_neither_rare_nor_determined(people):
    for name in ATTRIBUTES:
        has = column(people, name).bool()
        assert 0.06 < has.float().mean() < 0.6, name
        assert not any((has & column(people, other).bool()).any() for other in EXCLUDED.get(name, ())), name
        others = people.clone()
        others[:, ATTRIBUTES.index(name)] = 0
        twins = {tuple(row) for row in others[has].tolist()} & {tuple(row) for row in others[~has].tolist()}
        assert len(twins) > 3, f"people who have all but {name} in common"
    assert column(people, "Male")[column(people, "Mustache") == 1].all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_is_seen_where_it_belongs_and_nowhere_else(people, name):
    least, first, last = SHOWN[name]
    changed, masks, changed_masks = toggled(people, name)
    assert changed.mean() > least and changed.mean(dim=(1, 2)).min() > 0.05
    assert changed[:, first:last].sum() > 0.9 * changed.sum()
    assert changed[:, 0, [0, -1]].max() == 0, "the same background, light and grain"
    moved = (changed_masks != masks).flatten(1).any(dim=1).float().mean()
    assert moved > 0.5 if name in MOVES_LANDMARKS else moved == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bushy_Eyebrows", "Mouth_Slightly_Open"])
def test_masks_lie_on_the_parts(people, name):
    people = people[column(people, "Mustache") == 0]  # it moves with the mouth, and is not in the mask
    changed, masks, changed_masks = toggled(people, name, n=100)
    near = max_pool2d(torch.maximum(masks, changed_masks)[:, 0].float(), 5, stride=1, padding=2) > 0
    assert ((changed * near).sum(dim=(1, 2)) / changed.sum(dim=(1, 2))).min() > 0.8
    assert (changed_masks > 0).float().mean() > 1.05 * (masks > 0).float().mean(), "thicker, or open"


def test_a_face_does_not_depend_on_how_many_are_drawn_at_once(people, monkeypatch):
    faces, masks = draw_with_masks(people[:20], generator())
    monkeypatch.setattr(celeba.demo, "BATCH", 9)
    again, same = draw_with_masks(people[:20], generator())
    assert (again.int() - faces.int()).abs().max() <= 1, "but for rounding"
    assert (same != masks).float().mean() < 1e-4
