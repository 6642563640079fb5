"""Sentence embeddings by hand, analyses of models that are right or wrong."""

import json
from types import SimpleNamespace

from cub import analyse, pairs, sentences
from cub import classifier as readers
from cub.captions import END, PADDING, UNKNOWN, Vocabulary, words
from cub.data import load
from cub.demo import CAPTIONS, demo
from cub.options import BirdOptions
from cub.sentences import Sentences
from cub.trained_model import load_birds, load_trained
from reports.metrics import divergences
from tests.helpers.data_config import data_config

import pytest
import torch
from torch import nn
from torch.distributions import Normal


def test_embeddings_by_hand():
    """Weights 1/2, 1/4, 1 of frequencies 0.001, 0.003, 0; all tokens up to <eos> count, and it too."""
    vectors = torch.tensor([[-1.0, -1], [0, 0], [1, 1], [4, 0], [0, 8], [2, 2]]).double()
    frequency = torch.tensor([0.001, 0.5, 0.003, 0.001, 0.003, 0]).double()
    ids = torch.tensor([[3, 4, 2, 1], [2, 1, 1, 1], [0, 5, 3, 3], [5, 2, 4, 3]])
    means = torch.tensor([[2.25, 2.25], [0.25, 0.25], [5.5, 1.5], [2.25, 2.25]]).double()
    means /= torch.tensor([3, 1, 4, 2])[:, None]
    across = torch.tensor([0.6, 0.8]).double()
    found = sentences.weighted(vectors, frequency, ids)
    torch.testing.assert_close(Sentences(found.vectors, torch.zeros(2).double()).embed(ids), means)
    expected = means - (means @ across)[:, None] * across
    torch.testing.assert_close(Sentences(found.vectors, across).embed(ids), expected)


def test_the_first_principal_component_is_removed():
    vectors = torch.cat([torch.zeros(3, 3), torch.tensor([[0, 3.0, 4], [0, -3, -4], [1, 0, 0]]).repeat(1, 1)]).double()
    vectors[:, 0] += 10  # the mean is no component
    ids = torch.tensor([[3], [4], [3], [4], [5]])
    found = sentences.weighted(vectors, torch.zeros(6).double(), ids)
    assert found.component.abs().tolist() == pytest.approx([0, 0.6, 0.8], abs=1e-9)
    torch.testing.assert_close(found.embed(ids)[:, 0], torch.tensor([10, 10, 10, 10, 11]).double())
    assert found.embed(ids)[:, 1:].abs().max() < 1e-9


def test_fasttext_of_captions(monkeypatch):
    monkeypatch.setattr(sentences, "BUCKETS", 2000)
    captions = ["this bird is red", "this bird is blue", "a red bird", "an odd one"] * 10
    vocabulary = Vocabulary.of(captions[:-1], min_occ=9)
    assert vocabulary.words[3:] == ["this", "bird", "is", "red", "blue", "a"]
    ids = vocabulary.encode(captions)
    found = sentences.fit([words(caption) for caption in captions], ids, vocabulary)
    assert found.vectors.shape == (9, 300) and found.vectors.isfinite().all()
    n = (4 + 4 + 3 + 3 + 4) * 10  # tokens, <eos> among them
    weight = {UNKNOWN: -1e-3 / (1e-3 + 30 / n), PADDING: 0, END: 1e-3 / (1e-3 + 40 / n)}
    for i, expected in weight.items():
        assert found.vectors[i].tolist() == pytest.approx([expected] * 300)
    for seed, same in ((0, True), (1, False)):
        again = sentences.fit([words(caption) for caption in captions], ids, vocabulary, seed=seed)
        assert again.vectors.equal(found.vectors) == same
    assert found.component.norm().item() == pytest.approx(1)
    assert found.embed(torch.tensor([[END] + 31 * [PADDING]])).isfinite().all()


def find(x, known):
    """Which of the known each is: (N,)."""
    return torch.stack([(known == one).flatten(1).all(dim=1).nonzero()[0, 0] for one in x])


class Reader(nn.Module):
    """Knows sixty drawn birds by heart."""

    def __init__(self, birds, oracle):
        super().__init__()
        self.x, self.attributes = oracle.x[oracle.modalities[0]], birds.attributes

    def forward(self, x):
        true = self.attributes[find(x, self.x)].T
        return torch.cat([nn.functional.one_hot(*pair) for pair in zip(true, readers.VALUES, strict=True)], dim=1)


def drawn(source, n):
    """Test birds of the demo, with the words of their own captions."""
    given, vocabulary = data_config("", BirdOptions(), demo=True, limit=n), Vocabulary.of(demo("test", n)[1])
    return load("test", given, source=source, vocabulary=vocabulary)


class Oracle(nn.Module):
    """z is the number of a drawn bird: the one given, or, if it is wrong, the next one."""

    def __init__(self, birds, source, wrong=False):
        super().__init__()
        self.modalities = source, "caption"
        x = birds.examples.modalities
        self.x = {name: x[name].float() / 255 if name == "image" else x[name] for name in self.modalities}
        self.n, self.wrong = len(birds.classes), int(wrong)
        self.device = torch.device("cpu")

    def posterior(self, inputs):
        ((name, x),) = inputs.items()
        row = find(x, self.x[name])[:, None]
        number = row // 10 if name == "caption" else row
        return Normal(((number + self.wrong) % self.n).float(), 1e-3)

    def decode(self, z, names=None):
        number = z.squeeze(1).round().long()
        captions = self.x["caption"][10 * number + torch.arange(len(z)) % 10]
        return {
            name: SimpleNamespace(mode=captions) if name == "caption" else SimpleNamespace(mean=self.x[name][number])
            for name in names
        }

    def generate(self, n, latents=None):
        number = torch.randint(self.n, (n,)) if latents is None else latents.sample((n,)).squeeze(1).round().long()
        captions = self.x["caption"][10 * ((number + self.wrong) % self.n) + torch.randint(10, (n,))]
        return {self.modalities[0]: self.x[self.modalities[0]][number], "caption": captions}

    def prior(self):
        return Normal(torch.zeros(1), 1.0)


def test_generated_birds_are_paired_with_what_they_are_of():
    birds = drawn("image", 45)
    latents = {"prior": None, "fifth": Normal(torch.tensor([5.0]), 1e-3)}
    images, captions = pairs.generate(Oracle(birds, "image"), birds, 201, latents)
    assert {x.dtype for x in images.values()} == {torch.uint8}
    assert images["decoded"].equal(images["given"].repeat_interleave(10, dim=0))
    assert captions["decoded"].equal(captions["given"])
    assert len(images["prior"]) == len(captions["prior"]) == 201
    assert images["fifth"].equal(images["given"][5].expand(201, -1, -1, -1))
    assert {*map(tuple, captions["fifth"].tolist())} <= {*map(tuple, captions["given"][50:60].tolist())}


def test_images_are_described_by_the_network_of_the_features(monkeypatch, tmp_path):
    """Also the real ones, at 64 x 64."""
    means = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    means.register_parameter("unused", nn.Parameter(torch.zeros(())))
    monkeypatch.setattr(analyse, "network_of", lambda folder: {tmp_path: (means, 32)}[folder])
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 64, 64)
    found = analyse.descriptor("image", analyse.Config(tmp_path, data_dir=tmp_path))(images)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    torch.testing.assert_close(found, (torch.tensor([[0], [0.2], [1]]) - mean) / std)


def test_captions_that_name_nothing_have_no_share():
    birds = drawn("feature", 2)
    given = birds.examples.modalities["caption"]
    empty = torch.tensor([[END] + 31 * [PADDING]]).expand(20, -1)
    captions = {"given": given, "decoded": empty, "prior": empty}
    looks = {"given": birds.attributes, "decoded": birds.attributes.repeat_interleave(10, 0)}
    looks["prior"] = looks["decoded"]
    compared = pairs.compared("feature", ["prior"])
    found = analyse.coherence("feature", compared, looks, captions, birds.attributes, birds.vocabulary)
    assert found["feature -> caption"] == found["joint"] == {"right": None, "named": 0}
    assert found["caption -> feature"]["right"] == 1


def run(monkeypatch, tmp_path, wrong=False, n=60, **options):
    """The analysis of an oracle on n drawn birds."""
    birds = drawn("feature", n)
    monkeypatch.setattr(sentences, "BUCKETS", 2000)
    monkeypatch.setattr(readers, "BIRDS", 384)
    vocabulary, oracle = birds.vocabulary, Oracle(birds, "feature", wrong)
    monkeypatch.setattr(analyse, "reader", lambda source, *args: readers.reader(source))  # --limit leaves it all birds
    if wrong:
        monkeypatch.setattr(analyse, "reader", lambda *args: Reader(birds, oracle))

    def load_birds(split, *args):
        given = data_config("", BirdOptions(), demo=True, limit=args[-1].limit)
        return load(split, given, source="feature", vocabulary=vocabulary)

    monkeypatch.setattr(analyse, "load_birds", load_birds)
    monkeypatch.setattr(analyse, "load_trained", lambda config: (oracle, vocabulary))
    monkeypatch.setattr(analyse, "latents_and_networks", lambda *args: ({"nats": {}, "parameters": {}}, []))
    options = {"demo": True, "limit": n, "n_samples": 200, "components": 3, "umap": False} | options
    return analyse.main(analyse.Config(tmp_path, **options))


@pytest.mark.slow
def test_a_perfect_model_comes_to_the_ground_truth(monkeypatch, tmp_path, capsys):
    seen, original = [], analyse.cca
    monkeypatch.setattr(analyse, "cca", lambda x, y, *rest: seen.append((x, y)) or original(x, y, *rest))
    path = tmp_path / "out.json"
    found = run(monkeypatch, tmp_path, json=path, feature_components=20, n_test=50)
    names = ["ground truth", "feature -> caption", "caption -> feature", "joint"]
    truth, *cross, joint = (found["correlations"][name]["mean"] for name in names)
    assert cross == pytest.approx([truth, truth], abs=1e-6)
    assert joint == pytest.approx(truth, abs=0.08)
    assert truth > 0.1, "pairs of other images than those of the fit"
    right = {name: row["right"] for name, row in found["coherence"].items()}
    assert right["ground truth"] == right["feature -> caption"] == 1
    assert right["ground truth, read"] == right["caption -> feature"] > right["captions of other birds"] + 0.08
    assert right["joint"] == pytest.approx(right["ground truth, read"], abs=0.05)
    assert right["ground truth, read"] < 1
    content = json.loads(path.read_text())
    assert content["estimates"] == {f"correlation, {name}": x for name, x in found["correlations"].items()}
    assert content["coherence"] == found["coherence"] and content["n_examples"] == 500
    assert f"| feature -> caption | {truth:.3f} | " in capsys.readouterr().out
    ((x, y),) = seen
    train = load("train", data_config("", BirdOptions(), demo=True, limit=60), source="feature")
    assert x.equal(train.examples.modalities["feature"]) and len(y) == 10 * len(x), "directions are of training birds"


@pytest.mark.slow
def test_a_model_that_confuses_birds_comes_to_chance(monkeypatch, tmp_path):
    found = run(monkeypatch, tmp_path, wrong=True, n=150)
    others = {name: x["mean"] for name, x in found["correlations"].items() if name != "ground truth"}
    assert list(others.values()) == pytest.approx([0, 0, 0], abs=0.07)
    right = {name: row["right"] for name, row in found["coherence"].items()}
    chance = right["captions of other birds"]
    assert right["feature -> caption"] == chance < 0.33
    assert [right["caption -> feature"], right["joint"]] == pytest.approx([chance, chance], abs=0.06)


def test_divergences_are_of_images(trained, tmp_path):
    model, vocabulary = load_trained(analyse.Config(trained("cub"), demo=True))
    birds = load_birds("test", model, vocabulary, analyse.Config(trained("cub"), demo=True, limit=4))
    figures, _ = analyse.latents_and_networks(model, birds, vocabulary, tmp_path / "drawn")
    each = divergences(model, birds.examples.only(model.modalities), {"feature": ("feature",)})
    of_images = each["KL(q(z|feature) || p(z))"].sum(dim=1)[::CAPTIONS]  # alike for the ten captions of an image
    known = {"mean": of_images.mean().item(), "stderr": (of_images.std() / len(of_images) ** 0.5).item()}
    assert figures["nats"]["KL(q(z|feature) || p(z))"] == pytest.approx(known, rel=1e-4)
