"""The scripts of vision, on drawn faces and on files of CelebA's layout."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import celeba.classifier
import celeba.loglike
import vision.analyse
import vision.data
import vision.loglike
import vision.sample
import vision.train
from celeba.attributes import ATTRIBUTES
from common.checkpoints import load_model
from common.data import Batch
from common.errors import InputError
from common.objectives import MvaeElbo
from tests.helpers.celeba_files import N, write_celeba
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import TINY
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script
from vision.model import CHANNELS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with random subsets."""
    folder = tmp_path_factory.mktemp("vision")
    call(vision.train, "--demo", *TINY, "--approx-m", 1, "--save-dir", folder)
    return folder


@pytest.mark.slow
def test_a_mixtures_reconstruction_alone(tmp_path):
    call(vision.train, "--demo", *TINY, "--fusion", "moe", "--save-dir", tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "face.png")
    given = ("--condition-file", tmp_path / "face.png", "--n-samples", 1)
    call(vision.sample, tmp_path, *given, "--out-dir", tmp_path)
    assert (tmp_path / "given_image_face_png.png").exists()


@pytest.mark.usefixtures("finely")
@pytest.mark.parametrize("view", ["image", "gray", "edge", "mask", "obscured", "watermark"])
def test_all_six_views_of_a_file(trained, tmp_path, view):
    Image.effect_noise((178, 218), 80).convert("RGB").save(tmp_path / "face.png")
    args = (trained, "--condition-file", tmp_path / "face.png", "--condition-type", view)
    call(vision.sample, *args, "--n-samples", 3, "--out-dir", tmp_path)
    with Image.open(tmp_path / f"given_{view}_face_png.png") as picture:
        assert picture.width > 600
    given = vision.sample.given(tmp_path / "face.png", view)[view]
    photograph = vision.sample.given(tmp_path / "face.png", "image")["image"]
    assert given.shape == (1, vision.sample.CHANNELS[view], 64, 64)
    if view == "obscured":
        assert not given[..., 32:].any() and given[..., :32].equal(photograph[..., :32])
    if view == "mask":
        assert given.sub(1 - vision.sample.given(tmp_path / "face.png", "gray")["gray"]).abs().max() < 1e-6
    if view == "watermark":
        assert 0.01 < (given - photograph).abs().mean() < 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("finely")
@pytest.mark.parametrize("options", [(), ("--reconstruct",)])
def test_views_from_the_prior_and_of_test_images(trained, tmp_path, options):
    call(vision.sample, trained, "--demo", "--n-samples", 3, *options, "--out-dir", tmp_path)
    (picture,) = tmp_path.iterdir()
    assert picture.name == ("reconstructions.png" if options else "prior.png") and picture.stat().st_size > 10_000


@pytest.mark.parametrize(("options", "n"), [((), 3), (("--n-samples", 5), 5)])
def test_reconstructs_the_faces_that_are_asked_for(trained, tmp_path, monkeypatch, options, n):
    shown = []
    monkeypatch.setattr(vision.sample, "reconstructions", lambda model, faces, path: shown.append(len(faces)))
    call(vision.sample, trained, "--demo", "--limit", 20, "--reconstruct", *options, "--out-dir", tmp_path)
    assert shown == [n]


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    assert_samples_a_mixture(monkeypatch, vision.sample, trained, "--demo", "--limit", 20, "--out-dir", tmp_path)


def test_loglike_of_views(trained):
    asked = ("--by-size", "--target", "mask", "--given", "image", "gray")
    estimates = call(vision.loglike, trained, "--demo", "--limit", 2, "--n-samples", 2, *asked)
    assert {"log p(x_S), S of 6", "log p(x_T|x_S), S of 2, T all others", "log p(mask|image,gray)"} <= set(estimates)
    rest = estimates["log p(all six)"]["mean"] - estimates["log p(image|the five others)"]["mean"]
    assert rest < 0
    assert {f"log p({view})" for view in vision.sample.VIEWS} < set(estimates)


def test_views_are_read_from_what_setup_made(photographs, tmp_path):
    examples = vision.data.load("train", data_config(photographs, cache_dir=tmp_path))
    batch = examples[:]
    assert tuple(batch.modalities) == vision.sample.VIEWS
    assert {name: x.shape[1] for name, x in batch.modalities.items()} == vision.sample.CHANNELS
    assert batch.mask[:, 3].tolist() == [True, False, True, True, True, True]
    assert batch.mask[:, [0, 1, 2, 4, 5]].all()
    x = batch.modalities
    torch.testing.assert_close(x["mask"][0], 1 - x["gray"][0])
    assert not x["obscured"][..., 32:].any() and x["obscured"][..., :32].equal(x["image"][..., :32])
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert ((x["image"] * weights).sum(dim=1, keepdim=True) - x["gray"]).abs().mean() < 0.02
    whole = vision.data.load("test", data_config(photographs, cache_dir=tmp_path))
    assert whole.mask is None and whole.take(slice(1))[:].modalities["watermark"].shape == (1, 3, 64, 64)


def test_photographs_may_lie_where_mvaes_readme_has_them(photographs, tmp_path):
    expected = vision.data.load("test", data_config(photographs, cache_dir=tmp_path / "cache"))[:].modalities
    folder = shutil.copytree(photographs, tmp_path / "data")
    (folder / "img_align_celeba").rename(folder / "images")
    views = vision.data.load("test", data_config(folder))[:].modalities
    assert all(views[name].equal(expected[name]) for name in vision.sample.VIEWS)


def test_gray_is_what_pil_makes():
    image = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8)
    for x, gray in zip(image, vision.data.gray_of(image), strict=True):
        expected = Image.fromarray(x.permute(1, 2, 0).numpy()).convert("L")
        assert gray[0].tolist() == np.asarray(expected).tolist()


def test_edges_of_drawn_faces():
    gray = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    gray[..., 10:] = 255
    edges = vision.data.edges_of(gray, 1.0)
    assert edges.shape == (1, 1, 20, 20) and set(edges.unique().tolist()) == {0, 255}
    assert set(edges[0, 0].nonzero()[:, 1].tolist()) <= {9, 10}, "the border of light and dark"


def test_rows_without_a_modality_never_enter_the_statistics(trained):
    model = load_model(trained).train()
    views = vision.data.load("test", data_config("", demo=True, limit=5))[:].modalities
    norm = model.encoder["mask"][3]
    means = []
    for filler in (0.0, 1.0):
        x, there = views["mask"].clone(), torch.ones(5, 6, dtype=torch.bool)
        x[2], there[2, 3] = filler, False
        norm.reset_running_stats()
        MvaeElbo(model).bound(Batch(views | {"mask": x}, there))
        means.append(norm.running_mean.clone())
    assert means[0].equal(means[1])


def test_views_that_were_not_made_are_named(tmp_path):
    write_celeba(tmp_path)
    with pytest.raises(
        InputError, match=r"grayscale is missing: `python setup.py grayscale .*img_align_celeba .*` makes"
    ):
        vision.data.load("train", data_config(tmp_path))
    assert len(list((tmp_path / "img_align_celeba").iterdir())) == N
    assert not (tmp_path / "celeba_64.npy").exists(), "the photographs are not decoded before"


@pytest.mark.slow
def test_the_analysis_tells_what_generated_faces_show(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(celeba.classifier, "STEPS", 2)
    args = ("--demo", "--limit", 30, "--json", tmp_path / "out.json", "--out-dir", tmp_path)
    args += ("--data-dir", tmp_path)
    found = call(vision.analyse, trained, *args)
    content, views = json.loads((tmp_path / "out.json").read_text()), list(CHANNELS)
    assert {name: x["mean"] for name, x in content["estimates"].items()} == found
    assert "n_samples" not in content, "nothing is drawn from the prior"
    assert {name for name in found if not name.startswith(("KL(", "J("))} == {
        "classifier, image",
        *(f"coherence, {view} -> image" for view in views),
        *(f"latent accuracy, {view}" for view in views),
    }
    shares = content["attributes"]
    assert set(shares) == set(ATTRIBUTES) and set(shares["Bald"]) == {"test images", "more frequent value", *views}
    assert all(0 <= share <= 1 for row in shares.values() for share in row.values())
    traversals = [f"traversal_{view}.png" for view in views]
    pictures = sorted(["cross_generation.png", "kl.png", "umap.png", *traversals])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == pictures


@pytest.mark.slow
def test_training_on_photographs(photographs, tmp_path):
    """There are six, in some cases with one alone in the last batch, which gives batch norm no statistics."""
    args = ("--epochs", 1, "--n-latents", 4, "--batch-size", 3, "--annealing-epochs", 1)
    call(vision.train, "--data-dir", photographs, "--cache-dir", photographs, *args, "--save-dir", tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["train"]["joint/image"] < 0


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (vision.sample, ["--condition-file", "no.png"], "no.png is missing"),
        (vision.sample, ["--condition-type", "edge"], "--condition-type edge needs a picture: add --condition-file"),
        (vision.sample, ["--condition-file", "x", "--reconstruct"], "--reconstruct takes no --condition-f"),
        (celeba.loglike, [], "is a checkpoint of vision, not of celeba"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, capsys, script, args, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [str(trained), "--demo", *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(InputError, match="--lambda-edge must not be negative"):
        call(vision.train, "--demo", *TINY, "--lambda-edge", -1, "--save-dir", tmp_path)
