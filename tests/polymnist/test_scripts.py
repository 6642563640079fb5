"""The scripts on small models of the demo's images."""

import json

from common.data import Examples
from polymnist import analyse, sample, train
from polymnist.model import build
from polymnist.options import MODELS
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call
from training import objective_of

import pytest
import torch
from torch.distributions import Laplace


def small_objective(model):
    private = {"n_private": 3} if MODELS[model].private else {}
    config = train.Config(model=model, n_latents=4, n_modalities=3, **private)
    return objective_of(config, build(config))


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


@pytest.mark.parametrize("model", ["jnf", "dmvae", "cmvae"])
def test_bounds_reach_all_networks(model):
    """Also where examples lack images, if the model can learn from those."""
    objective = small_objective(model)
    inputs = {name: torch.rand(5, 3, 28, 28) for name in ("m0", "m1", "m2")}
    if MODELS[model].unpaired:
        inputs["m1"][0], inputs["m2"][1:3] = torch.nan, torch.nan
    objective(inputs, 0.5).backward()
    for name, p in objective.model.named_parameters():
        assert not p.requires_grad or (p.grad.isfinite().all() and p.grad.any()), name


def test_models_with_private_latents_have_the_settings_of_their_codes():
    config = train.Config(model="cmvae")
    assert (config.n_latents, config.n_private, config.n_clusters) == (32, 32, 40)
    assert (config.posterior, config.K, config.objectives()[0]) == ("laplace", 1, "iwae")
    model = build(config)
    assert model.latent_dim == 32 + 5 * 32 and model.prior.loc.shape == (40, 32)
    assert train.Config(model="dmvae").posterior == "gaussian"


def test_jnfs_joint_encoder_sees_the_channels_of_all_images():
    for networks in ("conv", "resnet"):
        model = build(train.Config(model="jnf", networks=networks, n_modalities=3, n_latents=4))
        alone, joint = model.encoder["m0"], model.encoder["m0,m1,m2"]
        first = next(joint.parameters())
        assert first.shape[1] == 9 and first.shape[0] == next(alone.parameters()).shape[0]
        images = torch.rand(3, 2, 3, 28, 28)
        torch.testing.assert_close(joint(*images), joint[0](images.movedim(0, 1).flatten(1, 2)))
        q = model.posterior(dict(zip(model.modalities, images, strict=True)))
        torch.testing.assert_close(q.mean, joint(*images)[0])


def test_residual_networks_are_those_of_mmvae_pluss_code():
    model = build(train.Config(model="mmvae+", networks="resnet", n_modalities=2))

    def block(a, b):
        hidden = min(a, b)
        return a * hidden * 9 + hidden + hidden * b * 9 + b + (a * b if a != b else 0)

    trunk = 3 * 64 * 9 + 64 + block(64, 64) + block(64, 128) + block(128, 256) + 2 * (12544 * 32 + 32)
    decoder = 64 * 12544 + 12544 + block(256, 128) + block(128, 64) + block(64, 64) + 64 * 3 * 9 + 3
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]
    assert sum(x.numel() for x in networks) == 2 * (2 * trunk + decoder)
    x = torch.rand(2, 3, 28, 28)
    shared, own = model.encoder["m0"]
    parts = zip(shared(x), own(x), strict=True)
    torch.testing.assert_close(model.encoder["m0"](x), tuple(torch.cat(part, dim=1) for part in parts))


def test_judges_are_told_apart_by_what_they_judge(monkeypatch, tmp_path):
    files = []
    monkeypatch.setattr(analyse, "judge", lambda *args: files.append(args[-1] and args[-1].name))
    model = build(train.Config(n_latents=2, n_modalities=2))
    for options in ({"images": "original"}, {}, {"translated": True}, {"quadrant": True}):
        config = analyse.Config(tmp_path, data_dir=tmp_path, n_modalities=2, **options)
        analyse.judges(config, Examples({"m0": torch.zeros(1)}), torch.zeros(1, 1), model)
    assert files == [
        f"digits_of_m{i}_{kind}.pt"
        for kind in ("original", "generated", "generated_translated", "generated_quadrant")
        for i in (0, 1)
    ]


def test_training_with_missing_images(tmp_path):
    small = ("--demo", "--limit", 40, "--epochs", 1, "--batch-size", 20, "--n-latents", 6, "--n-modalities", 3)
    call(train, *small, "--missing", 0.6, "--save-dir", tmp_path)
    terms = json.loads((tmp_path / "metrics.jsonl").read_text())["train"]
    assert terms["m0/m0"] < 0 and 0.2 < terms["m1/m1"] / terms["m0/m0"] < 0.6, "a term counts where its image is there"


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, sample, trained("polymnist"), *options)
