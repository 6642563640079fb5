"""Weak supervision beside mnist's: strings by character, attributes by F1."""

from types import SimpleNamespace

from celeba.weak_supervision import mean_f1
from common.data import Examples
from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from training import weak_supervision
from training.weak_supervision import Task, score

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy


def test_accuracy_and_the_mean_f1_of_attributes():
    predicted, labels = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 0], [3, 4]])
    assert Task(("text",), 5).score(predicted, labels) == 0.75
    none, some = torch.zeros(4, 18, dtype=torch.long), torch.zeros(4, 18, dtype=torch.long)
    some[:2, 0], some[0, 1] = 1, 1
    said = some.clone()
    said[1, 0] = 0
    assert mean_f1(said, some) == pytest.approx((2 / 3 + 1) / 2), "over the attributes that some face has"
    assert mean_f1(some, none) == 0
    with pytest.raises(InputError, match="no test face has an attribute, or is said to have one: raise --limit"):
        mean_f1(none, none)


def test_labels_are_those_of_all_modalities_in_order():
    values = {"b": torch.tensor([0.9, 0.2]), "x": torch.zeros(2), "a": torch.tensor([[1, 2], [3, 4]])}
    assert Task(("a", "b"), 5).labels(values).tolist() == [[1, 2, 1], [3, 4, 0]]


def test_a_score_is_that_of_all_test_images():
    test = Examples({"image": torch.arange(1200.0)[:, None], "text": torch.arange(1200) % 3})
    right = score(lambda image: (image % 3).long(), test, Task(("text",), 3))
    half = score(lambda image: torch.where(image < 600, image % 3, -1).long(), test, Task(("text",), 3))
    assert (right, half) == (1.0, 0.5)


def build(config):
    """What `classifier` takes of a model: its image encoder."""
    image = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), SplitLinearLayer(16, (2, 2)))
    return SimpleNamespace(encoder={"image": image})


def test_a_classifier_learns_in_its_steps(monkeypatch):
    """It learns strings of two characters from the image, with a new gradient at each step."""
    steps = 150
    torch.manual_seed(0)
    text = torch.randint(3, (40, 2))
    image = torch.cat([text, text.square()], dim=1).float()
    sizes, zeroed = [], []
    monkeypatch.setattr(
        weak_supervision, "cross_entropy", lambda logits, y: sizes.append(logits.shape) or cross_entropy(logits, y)
    )
    original = torch.optim.Adam.zero_grad
    monkeypatch.setattr(torch.optim.Adam, "zero_grad", lambda self: zeroed.append(original(self)))
    config, task = SimpleNamespace(seed=0, lr=0.03, batch_size=10), Task(("text",), 3)
    network = weak_supervision.classifier(config, build, Examples({"image": image, "text": text}), task, steps)
    assert sizes == [(20, 3)] * steps and len(zeroed) == steps and not network.training
    right = (network(image).argmax(dim=2) == text).double().mean()
    assert right > 0.9
