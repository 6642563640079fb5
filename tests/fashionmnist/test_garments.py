import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from fashionmnist.demo import draw
from mnist.idx_files import read_idx

N = 1300
LABELS = torch.arange(N) % 10


def drawn(labels=LABELS, seed=0):
    return draw(labels, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    return drawn()


def extents(images):
    """Heights and widths (N,) of the garments (N, 1, 28, 28), and their centres (N, 2) from the frame's own."""
    sizes, centres = [], []
    for dim in (3, 2):
        lit = (images > 0).any(dim=dim).squeeze(1).long()  # (N, 28): rows, then columns
        first, last = lit.argmax(dim=1), 27 - lit.flip(1).argmax(dim=1)
        sizes.append(last - first + 1)
        centres.append((first + last) / 2 - 13.5)
    return *sizes, torch.stack(centres, dim=1)


def test_garments_are_drawn_from_the_generator_alone(images):
    assert images.shape == (N, 1, 28, 28) and images.dtype == torch.uint8
    torch.manual_seed(1)
    np.random.seed(1)
    assert drawn().equal(images)
    assert torch.initial_seed() == 1 and torch.rand(1).equal(torch.rand(1, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(0)
    first, second = draw(LABELS[:50], generator), draw(LABELS[:50], generator)
    for other in (second, drawn(LABELS[:50], seed=1)):
        assert (first != other).flatten(1).any(dim=1).all()
    assert drawn(LABELS[:1]).shape == (1, 1, 28, 28)


def test_garments_are_bright_on_black_and_inside_the_frame(images):
    inner = torch.zeros(28, 28, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    assert images[:, 0, ~inner].max() == 0
    lit = (images > 0).float().mean(dim=(1, 2, 3))
    assert lit.min() > 0.1 and lit.max() < 0.75
    brightest = images.amax(dim=(1, 2, 3))
    assert brightest.min() > 80 and brightest.max() > 240
    *_, centres = extents(images)
    assert centres[:, 1].abs().max() <= 1 and centres[:, 0].abs().max() < 4


@pytest.mark.parametrize("label", range(10))
def test_every_class_varies(images, label):
    images = images[label == LABELS]
    assert len(images.unique(dim=0)) == len(images)
    outlines = images > 0
    assert len(outlines.unique(dim=0)) > 0.9 * len(images)
    assert outlines.float().var(dim=0).max() > 0.2, "some pixel is lit in about half of them"
    lit = images.flatten(1).float()
    brightness = lit.sum(dim=1) / (lit > 0).sum(dim=1)
    assert brightness.std() > 20


def test_classes_stand_in_the_order_of_fashionmnist(images):
    height, width, _ = extents(images)
    ratio = torch.stack([(height / width)[label == LABELS].mean() for label in range(10)])
    trouser, dress, sandal, sneaker = ratio[[1, 3, 5, 7]]
    assert trouser == ratio.max() and trouser > 1.5 and dress > 1.2
    assert sneaker == ratio.min() and sneaker < 0.6 and sandal < 0.7
    middle = images[:, 0, :, 13:15].float().mean(dim=2)  # (N, 28)
    front = torch.stack([middle[label == LABELS].mean(dim=0) for label in range(10)])
    assert front[1, 20] < 20, "between the legs"
    assert front[4, 20] < 0.5 * front[[0, 2, 6], 20].min(), "a coat is open where a T-shirt, pullover and shirt are not"


def test_classes_are_told_apart(images):
    x, y = images.flatten(1).numpy() / 255, LABELS.numpy()
    classifier = LogisticRegression(max_iter=300).fit(x[:1000], y[:1000])
    assert classifier.score(x[1000:], y[1000:]) > 0.97, "25 seeds had at least 0.993"


@pytest.mark.real_data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of datasets")
def test_the_nearest_drawn_class_says_what_a_photograph_shows(images):
    folder = Path(os.environ["DATA_ROOT"]) / "fashionmnist"
    photographs = read_idx(folder / "t10k-images-idx3-ubyte.gz", (28, 28)).flatten(1).float()
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", ())
    means = torch.stack([images[label == LABELS].flatten(1).float().mean(dim=0) for label in range(10)])
    guesses = (normalize(photographs) @ normalize(means).T).argmax(dim=1)
    assert (guesses == labels).float().mean() > 0.4, "chance has 0.1"
