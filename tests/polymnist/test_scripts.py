"""The scripts on small models of the demo's images."""

import json
import math

import pytest
import torch
from torch.distributions import Laplace

from common.checkpoints import load_model
from common.data import Examples
from common.errors import InputError
from polymnist import analyse, loglike, sample, train
from polymnist.data import load
from polymnist.model import build
from polymnist.options import DatasetOptions
from tests.helpers.data_config import data_config
from tests.helpers.scripts import call

SMALL = ("--demo", "--limit", 40, "--epochs", 1, "--batch-size", 20, "--n-latents", 6, "--n-modalities", 3)


@pytest.fixture(
    scope="module", params=["mvae", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mmvae", "mopoe"))]
)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    call(train, *SMALL, "--model", request.param, "--save-dir", folder)
    return folder


def test_training_draws_and_reports(trained):
    assert math.isfinite(json.loads((trained / "metrics.jsonl").read_text())["train"]["bound"])
    drawn = {path.name for path in (trained / "samples").iterdir()}
    assert drawn == {"prior.png", "from_m0.png", "from_m1_m2.png"}


def test_samples_likelihoods_and_coherence(trained, monkeypatch):
    demo = ("--demo", "--limit", 12, "--n-modalities", 3)
    assert call(sample, trained).name == "sample_prior.png"
    assert call(sample, trained, "--given", "m0", "m2", *demo, "--n-samples", 5).name == "sample_from_m0_m2.png"
    found = call(loglike, trained, *demo, "--n-samples", 3)
    assert {"log p(m0,m1,m2)", "log p(m0)", "log p(m2), z from q(z|m0)"} <= set(found)
    monkeypatch.setattr(analyse, "STEPS", 2)
    found = call(analyse, trained, *demo, "--n-samples", 10, "--no-umap", "--json", trained / "out.json")
    pairs = {f"coherence, {a} -> {b}" for a in ("m0", "m1", "m2") for b in ("m0", "m1", "m2")}
    assert pairs | {"coherence, joint", "classifier, m1", "latent accuracy, m2"} <= set(found)
    assert json.loads((trained / "out.json").read_text())["data"] == "demo"


def test_networks_and_settings_are_those_of_mopoes_code():
    defaults = train.Config()
    assert (defaults.n_latents, defaults.batch_size, defaults.epochs) == (512, 256, 300)
    assert (defaults.lr, defaults.beta, defaults.annealing_epochs) == (5e-4, 2.5, 0)
    model = build(defaults)
    encoder = 3 * 32 * 9 + 32 + 32 * 64 * 9 + 64 + 64 * 128 * 9 + 128 + 2048 * 512 + 512 + 2 * (512 * 512 + 512)
    decoder = 512 * 2048 + 2048 + 128 * 64 * 9 + 64 + 64 * 32 * 9 + 32 + 32 * 3 * 9 + 3
    assert sum(x.numel() for x in model.parameters()) == 5 * (encoder + decoder)
    p = model.decode(torch.randn(2, 512))
    assert list(p) == ["m0", "m1", "m2", "m3", "m4"]
    for q in p.values():
        assert isinstance(q.base_dist, Laplace) and (q.base_dist.scale == 0.75).all() and q.mean.shape == (2, 3, 28, 28)


def test_judges_are_told_apart_by_what_they_judge(monkeypatch, tmp_path):
    files = []
    monkeypatch.setattr(analyse, "judge", lambda *args: files.append(args[-1] and args[-1].name))
    model = build(train.Config(n_latents=2, n_modalities=2))
    for options in ({"images": "original"}, {}, {"translated": True}):
        config = analyse.Config(tmp_path, data_dir=tmp_path, n_modalities=2, **options)
        analyse.judges(config, Examples({"m0": torch.zeros(1)}), torch.zeros(1, 1), model)
    assert files == [
        f"digits_of_m{i}_{kind}.pt" for kind in ("original", "generated", "generated_translated") for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (sample, ("--given", "m3", "--demo"), "this model has no m3: --given takes m0, m1, m2"),
        (loglike, ("--demo", "--n-modalities", 5), "--n-modalities 3"),
        (analyse, ("--demo", "--n-modalities", 3, "--translated", "--no-umap"), "translated"),
    ],
)
def test_another_set_than_the_models_is_refused(trained, script, args, message):
    with pytest.raises(InputError, match=message):
        call(script, trained, *args)


def test_models_that_do_not_exist_are_refused(tmp_path):
    for options, message in (
        (("--model", "mvae", "--posterior", "laplace"), "there is no fusion poe for laplace experts"),
        (("--paired-fraction", 0.5), "PolyMNIST is paired by its digits"),
        (("--n-modalities", 1), "--n-modalities must lie between 2 and 10"),
    ):
        with pytest.raises(InputError, match=message):
            call(train, "--demo", *options, "--save-dir", tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_learns_what_its_images_look_like(tmp_path):
    """Reconstructions are nearer to test images than the mean of all is."""
    options = ("--demo", "--n-modalities", 2, "--n-latents", 16, "--beta", 1, "--lr", "1e-3", "--batch-size", 50)
    call(train, *options, "--epochs", 12, "--save-dir", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["valid"]["bound"] > lines[0]["valid"]["bound"] + 500
    x = load("test", data_config("", DatasetOptions(n_modalities=2), demo=True)).only(("m0", "m1"))[:].modalities
    decoded = load_model(tmp_path).reconstruct(x)
    errors, of_mean = (
        sum((image - y(name)).square().mean() for name, image in x.items())
        for y in (decoded.get, lambda name: x[name].mean(dim=0))
    )
    assert errors < 0.7 * of_mean
