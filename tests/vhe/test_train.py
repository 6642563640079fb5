"""Training a homoencoder of characters, and what its options refuse."""

from common.checkpoints import load_model, start_from
from training.options import as_json
from vhe import sample, train
from vhe.character_sets import STYLES, in_style, support_sets
from vhe.data import Characters
from vhe.framework.estimators import log_conditional
from vhe.model import Images, IndependentPixels, build

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

SMALL = {"demo": True, "n_latents": 8, "annealing_epochs": 1}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(sample, "draw", lambda model, folder, train, valid: None)


def bars(n_characters, n=10):
    """Characters of one bar, standing or lying, each at a place of its own; two alphabets."""
    at = 4 + 20 * torch.rand(n_characters, 1, 1, 1, 1) + 0.5 * torch.randn(n_characters, n, 1, 1, 1)
    images = ((torch.arange(28.0) - at).abs() < 1.5).float().expand(-1, -1, 1, 28, 28).clone()
    images[::2] = images[::2].mT
    files = [f"{'ab'[2 * c // n_characters]}/{c}/{c}_{i}.png" for c in range(n_characters) for i in range(n)]
    return Characters.of(images.flatten(0, 1), files)


@pytest.fixture
def _bars(monkeypatch):
    monkeypatch.setattr(train, "load", lambda *_: bars(8, 6))


@pytest.mark.slow
def test_training_learns_characters_from_few_examples(tmp_path, monkeypatch):
    """Images of unseen characters are likelier given others of their character than given another's."""
    seen, unseen = bars(30), bars(20)
    monkeypatch.setattr(train, "load", lambda *_: seen)
    several = SMALL | {"batch_size": 25, "n_latents": 16, "lr": 2e-3, "annealing_epochs": 0, "rotations": False}
    train.main(train.Config(save_dir=tmp_path, epochs=4, valid=0, **several))
    batch = support_sets(unseen, "cz", 5)[torch.arange(200)]
    model = load_model(tmp_path, "vhe")
    own = log_conditional(model, batch.target, {"c": batch.inputs["c"]}, 3)
    another = log_conditional(model, batch.target, {"c": batch.inputs["c"].roll(20, dims=0)}, 3)
    difference = own - another
    assert difference.mean() > 8 * difference.std() / len(difference) ** 0.5
    independent = torch.distributions.Bernoulli(seen.images.mean(dim=0).clamp(0.01, 0.99)).log_prob(unseen.images)
    assert own.mean() > independent.sum(dim=(1, 2, 3)).mean() + 60


def test_turned_characters_are_others_and_styles_are_shared():
    images = (torch.rand(6, 1, 28, 28) < 0.3).float()
    characters = Characters.of(images, [f"a/{c}/{i}.png" for c in "xy" for i in range(3)])
    versions = {("turned", v): images.rot90(v, (2, 3)) for v in range(4)}
    versions |= {style: in_style(images, style) for style in STYLES}
    known = {x[i].numpy().tobytes(): (i // 3, version) for version, x in versions.items() for i in range(6)}

    def drawn(latent, *options):
        batch = support_sets(characters, *options)[torch.arange(6).repeat(40)]
        pairs = zip(batch.target, batch.inputs[latent], strict=True)
        return [(known[x.numpy().tobytes()], [known[y.numpy().tobytes()] for y in others]) for x, others in pairs]

    turned = drawn("c", "cz", 2, True)
    assert all(others == [of_target] * 2 for of_target, others in turned) and len({v for (_, v), _ in turned}) == 4
    of_contents, of_styles = (drawn(latent, "csz", 2) for latent in "cs")
    assert all({c for c, _ in others} == {character} for (character, _), others in of_contents)
    assert any(v != style for (_, style), others in of_contents for _, v in others)
    assert all({v for _, v in others} == {style} for (_, style), others in of_styles)
    assert any(c != character for (character, _), others in of_styles for c, _ in others)
    assert {v for (_, v), _ in of_styles} == set(STYLES)


def test_z_places_the_map():
    images = Images(8, 16, IndependentPixels(16))
    code, z = torch.randn(5, 8), torch.randn(5, 16)
    torch.testing.assert_close(images.context(code, z), images.map(code), atol=1e-4, rtol=0)
    torch.nn.init.normal_(images.place.weight)
    matrix = torch.eye(2, 3) + 0.5 * images.place(z).tanh().view(5, 2, 3)
    expected = grid_sample(
        images.map(code), affine_grid(matrix, [5, 1, 28, 28], align_corners=False), align_corners=False
    )
    torch.testing.assert_close(images.context(code, z), expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("_bars")
def test_a_pixelcnn_takes_up_the_codes_of_a_deconvolutional_run(tmp_path):
    train.main(train.Config(save_dir=tmp_path, epochs=1, **SMALL))
    theirs = load_model(tmp_path, "vhe").state_dict()
    config = train.Config(decoder="pixelcnn", **SMALL)
    model = build(config)
    own = {name: x.clone() for name, x in model.state_dict().items()}
    start_from(tmp_path, model, "vhe", as_json(config))
    for name, x in model.state_dict().items():
        of_pixels = name.startswith("decoder.images.pixels.")
        assert torch.equal(x, own[name] if of_pixels else theirs[name]), name
        assert of_pixels or name.endswith("_state") or not torch.equal(x, own[name]), name
