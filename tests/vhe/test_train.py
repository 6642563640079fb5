"""Training a homoencoder of characters, and what its options refuse."""

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from common.checkpoints import LAST, load, load_model, start_from
from common.io import save_tensors
from tests.helpers.scripts import run_script
from training.options import as_json
from vhe import sample, train
from vhe.character_sets import support_sets
from vhe.data import Characters
from vhe.framework.estimators import log_conditional
from vhe.model import Images, IndependentPixels, build

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


@pytest.mark.slow
@pytest.mark.usefixtures("_bars")
@pytest.mark.parametrize(
    "options", [{"model": "factorial"}, {"model": "hierarchical", "rotations": False}, {"decoder": "pixelcnn"}]
)
def test_a_resumed_run_ends_as_one_never_stopped(tmp_path, options):
    several = SMALL | {"batch_size": 10} | options
    train.main(train.Config(save_dir=tmp_path / "whole", epochs=2, **several))
    train.main(train.Config(save_dir=tmp_path / "parts", epochs=1, **several))
    train.main(train.Config(save_dir=tmp_path / "parts", epochs=2, resume=True, **several))
    whole, parts = (load(tmp_path / name / LAST)["state_dict"] for name in ("whole", "parts"))
    for name, x in whole.items():
        assert torch.equal(x, parts[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k-shot", "0"], "--k-shot must be positive, not 0"),
        (["--k-shot", "30"], "--k-shot 30 is too large: a character has only 20 images"),
        (
            ["--model", "factorial", "--objective", "statistician"],
            "--objective statistician needs --model character (got --model factorial)",
        ),
        (["--valid", "24"], "--valid must lie between 0 and 23, since there are 24 alphabets: it is 24"),
        (["--test-alphabets", "Greek"], "--test-alphabets needs Omniglot: leave out either --test-alphabets or --demo"),
    ],
)
def test_what_cannot_be_trained_is_named(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(train, ["--demo", "--save-dir", str(tmp_path / "run"), *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_of_another_experiment_are_refused(tmp_path, capsys):
    save_tensors(
        tmp_path / "model_best.pth.tar", {"experiment": "mnist", "config": {"model": "mvae"}, "state_dict": {}}
    )
    with pytest.raises(SystemExit):
        run_script(train, ["--pre-trained", str(tmp_path)])
    assert "has --model mvae, Invalid enum value" in capsys.readouterr().err
