"""The scripts of vision, on drawn faces and on files of CelebA's layout."""

import json

import vision.analyse
import vision.data
import vision.loglike
import vision.sample
import vision.train
from common.checkpoints import load_model
from common.data import Batch
from common.errors import InputError
from common.multimodal_vae import MultimodalVAE
from common.objectives import MvaeElbo
from tests.helpers.celeba_files import N, write_celeba
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import TINY
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.mark.parametrize("view", ["image", "gray", "edge", "mask", "obscured", "watermark"])
def test_all_six_views_of_a_file(trained, tmp_path, view):
    Image.effect_noise((178, 218), 80).convert("RGB").save(tmp_path / "face.png")
    args = (trained("vision"), "--condition-file", tmp_path / "face.png", "--condition-type", view)
    call(vision.sample, *args, "--n-samples", 3, "--out-dir", tmp_path)
    assert (tmp_path / f"given_{view}_face_png.png").exists()
    given = vision.sample.given(tmp_path / "face.png", view)[view]
    photograph = vision.sample.given(tmp_path / "face.png", "image")["image"]
    assert given.shape == (1, vision.sample.CHANNELS[view], 64, 64)
    if view == "obscured":
        assert not given[..., 32:].any() and given[..., :32].equal(photograph[..., :32])
    if view == "mask":
        assert given.sub(1 - vision.sample.given(tmp_path / "face.png", "gray")["gray"]).abs().max() < 1e-6
    if view == "watermark":
        assert 0.01 < (given - photograph).abs().mean() < 0.5


def test_a_file_decides_what_is_decoded(trained, tmp_path, monkeypatch):
    seen, decode = [], MultimodalVAE.decode
    monkeypatch.setattr(MultimodalVAE, "decode", lambda model, z, *args: seen.append(z[0]) or decode(model, z, *args))
    for colour in ("white", "black"):
        Image.new("RGB", (178, 218), colour).save(tmp_path / "face.png")
        args = ("--condition-file", tmp_path / "face.png", "--n-samples", 1, "--out-dir", tmp_path)
        call(vision.sample, trained("vision"), *args)
    assert (seen[0] != seen[1]).all() and (tmp_path / "given_image_face_png_mask.png").exists()


@pytest.mark.parametrize(("options", "n"), [((), 3), (("--n-samples", 5), 5)])
def test_reconstructs_the_faces_that_are_asked_for(trained, tmp_path, monkeypatch, options, n):
    run, shown = trained("vision"), []
    monkeypatch.setattr(vision.sample, "reconstructions", lambda model, faces, path: shown.append(len(faces)))
    call(vision.sample, run, "--demo", "--limit", 20, "--reconstruct", *options, "--out-dir", tmp_path)
    assert shown == [n]


@pytest.mark.parametrize("fusion", ["poe", "moe"])
def test_a_reconstruction_alone(trained, tmp_path, fusion):
    """torch refuses to draw no components of a mixture."""
    run = trained("vision")
    if fusion == "moe":
        run = tmp_path / "run"
        call(vision.train, "--demo", *TINY, "--fusion", fusion, "--save-dir", run)
    Image.new("RGB", (64, 64)).save(tmp_path / "face.png")
    call(vision.sample, run, "--condition-file", tmp_path / "face.png", "--n-samples", 1, "--out-dir", tmp_path)
    assert (tmp_path / "given_image_face_png.png").exists()


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, vision.sample, trained("vision"), *options)


def test_loglike_names_what_was_asked(trained):
    asked = ("--by-size", "--target", "mask", "--given", "image", "gray")
    estimates = call(vision.loglike, trained("vision"), "--demo", "--limit", 2, "--n-samples", 2, *asked)
    assert {"log p(x_S), S of 6", "log p(x_T|x_S), S of 2, T all others", "log p(mask|image,gray)"} <= set(estimates)
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
    model = load_model(trained("vision")).train()
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
def test_training_on_photographs(photographs, tmp_path):
    """The last batch has one alone, which gives batch norm no statistics."""
    args = ("--epochs", 1, "--n-latents", 4, "--batch-size", 3, "--annealing-epochs", 1)
    call(vision.train, "--data-dir", photographs, "--cache-dir", photographs, *args, "--save-dir", tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["train"]["joint/image"] < 0
