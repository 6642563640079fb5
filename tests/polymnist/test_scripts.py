"""The scripts on small models of the demo's images."""

import json
import math

import pytest
import torch
from torch.distributions import Laplace

from common.checkpoints import load_model
from common.data import Batch, Examples
from common.distributions import hamiltonian
from common.errors import InputError
from common.execution import decoder
from polymnist import analyse, loglike, sample, train
from polymnist.data import load
from polymnist.model import build
from polymnist.options import MODELS, DatasetOptions
from tests.helpers.captured import NoConstants
from tests.helpers.data_config import data_config
from tests.helpers.runs import assert_same_run
from tests.helpers.scripts import call
from training import objective_of

# one fast; beside it a mixture of products, one with flows, a mixture's ELBO and a prior of clusters
TRAINED = ["mmvae+", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mopoe", "jnf", "mmjsd", "cmvae"))]
OTHERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("mvtcae", "crmvae", "dmvae", "mopoe-published")
]  # resumed, and not sampled and scored
SMALL = ("--demo", "--limit", 40, "--epochs", 1, "--batch-size", 20, "--n-latents", 6, "--n-modalities", 3)


@pytest.fixture(scope="module", params=TRAINED)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    private = ("--n-private", 3) if MODELS[request.param].private else ()
    call(train, *SMALL, "--model", request.param, *private, "--save-dir", folder)
    return folder


def test_training_draws_and_reports(trained):
    assert math.isfinite(json.loads((trained / "metrics.jsonl").read_text())["train"]["bound"])
    drawn = {path.name for path in (trained / "samples").iterdir()}
    assert drawn == {"prior.png", "from_m0.png", "from_m1_m2.png"}


@pytest.mark.parametrize("name", [*TRAINED, *OTHERS])
def test_a_resumed_run_is_the_run_never_stopped(name, tmp_path):
    private = ("--n-private", 3) if MODELS[name].private else ()
    missing = ("--missing", 0.3) if MODELS[name].unpaired else ()
    for folder, lengths in (("whole", (2,)), ("parts", (1, 2))):
        for epochs in lengths:
            options = ("--model", name, *private, *missing, "--epochs", epochs, "--resume")
            call(train, *SMALL, *options, "--save-dir", tmp_path / folder)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_samples_likelihoods_and_coherence(trained, monkeypatch):
    monkeypatch.setattr(hamiltonian, "LEAPS", 1)  # of jnf's chains, for speed
    demo = ("--demo", "--limit", 12, "--n-modalities", 3)
    assert call(sample, trained).name == "prior.png"
    assert call(sample, trained, "--given", "m0", "m2", *demo, "--n-samples", 5).name == "from_m0_m2.png"
    assert call(sample, trained, "--mixture", 2, *demo).name == "mixture_2.png"
    if load_model(trained).prior.is_mixture:
        assert call(sample, trained, "--cluster", 39).name == "cluster_39.png"
    found = call(loglike, trained, *demo, "--n-samples", 3)
    assert {"log p(m0,m1,m2)", "log p(m0)", "log p(m2), z from q(z|m0)"} <= set(found)
    found = call(loglike, trained, *demo, "--n-samples", 2, "--by-size", "--given", "m0", "m2")
    assert {"log p(x_T|x_S), S of 2, T all others", "log p(x_S), S of 3", "log p(m1|m0,m2)"} <= set(found)
    monkeypatch.setattr(analyse, "STEPS", 2)
    monkeypatch.setattr(analyse, "inception_features", lambda path, device: lambda x: x.flatten(1)[:, ::500])
    options = ("--n-samples", 10, "--no-umap", "--mixture", 2, "--inception", "weights.pth", "--data-dir", trained)
    found = call(analyse, trained, *demo, *options, "--json", trained / "out.json")
    assert "coherence, joint, z from 2 Gaussians" in found
    pairs = {f"coherence, {a} -> {b}" for a in ("m0", "m1", "m2") for b in ("m0", "m1", "m2")}
    assert pairs | {"coherence, joint", "classifier, m1", "latent accuracy, m2"} <= set(found)
    assert {"clusters, k-means", "SSIM, all -> m2", "SSIM, m0 -> m0"} <= set(found)
    clustered = load_model(trained).prior.is_mixture
    assert ("clusters, the prior (40)" in found) == ("coherence, joint, z from the pruned prior" in found) == clustered
    assert {"macro, 2 given", "spread, 1 given", "linear accuracy, 3 given", "FD, 0 given"} <= set(found)
    assert {f"FID, {n} given" for n in range(4)} <= set(found)
    written = json.loads((trained / "out.json").read_text())
    assert written["data"] == "demo" and written["by_size"]["1"]["FD"] == found["FD, 1 given"]
    subsets = written["by_subset"]
    assert len(subsets) == 8 and subsets["m0, m2"]["targets"]["m1"].keys() == {"coherence", "macro", "FD", "FID"}
    others = [
        subsets[given]["targets"][to]["coherence"]
        for given, to in (("m0, m1", "m2"), ("m0, m2", "m1"), ("m1, m2", "m0"))
    ]
    assert found["coherence, 2 given"] == pytest.approx(sum(others) / 3)


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


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), "meta"])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_that_is_captured_looks_at_no_value_and_copies_none(model, device, monkeypatch):
    """A CUDA graph cannot wait for values; tensors of the device "meta" have none."""
    monkeypatch.setitem(decoder.DECODED_AT_ONCE, "meta", 500)
    private = {"n_private": 3} if MODELS[model].private else {}
    config = train.Config(model=model, n_latents=4, n_modalities=3, **private)
    objective = objective_of(config, build(config).to(device))
    assert objective.same_operations
    images = {name: torch.rand(3, 3, 28, 28, device=device) for name in ("m0", "m1", "m2")}
    some = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])
    for mask in (None, some) if MODELS[model].unpaired else (None,):
        batch = Batch(images, None if mask is None else mask.to(device), every_row=True, observed={})
        with NoConstants():
            objective.backward(batch, 0.5, 3)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "mvae"])
def test_every_models_bound_is_finite_and_reaches_its_networks(model):
    private = {"n_private": 3} if MODELS[model].private else {}
    config = train.Config(model=model, n_latents=4, n_modalities=3, **private)
    config.check()
    objective = objective_of(config, build(config))
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
    one = build(train.Config(networks="resnet", n_modalities=2, n_latents=7))
    mu, logvar = one.encoder["m0"](torch.rand(2, 3, 28, 28))
    assert mu.shape == logvar.shape == (2, 7) and one.decode(mu)["m1"].mean.shape == (2, 3, 28, 28)
    x = torch.rand(2, 3, 28, 28)
    shared, own = model.encoder["m0"]
    parts = zip(shared(x), own(x), strict=True)
    torch.testing.assert_close(model.encoder["m0"](x), tuple(torch.cat(part, dim=1) for part in parts))


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


def test_training_with_missing_images(tmp_path):
    call(train, *SMALL, "--missing", 0.6, "--save-dir", tmp_path)
    terms = json.loads((tmp_path / "metrics.jsonl").read_text())["train"]
    assert terms["m0/m0"] < 0 and 0.2 < terms["m1/m1"] / terms["m0/m0"] < 0.6, "a term counts where its image is there"


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (sample, ("--given", "m3", "--demo"), "this model has no m3: --given takes m0, m1, m2"),
        (sample, ("--given", "m0", "m0", "--demo"), "--given names m0 twice: name each modality once"),
        (loglike, ("--demo", "--n-modalities", 5), "--n-modalities 3"),
        (loglike, ("--demo", "--n-modalities", 3, "--target", "m7"), "no m7: --target and --given take m0, m1, m2"),
        (loglike, ("--demo", "--n-modalities", 3, "--target", "m1", "--given", "m1"), "name m1 more than once"),
        (loglike, ("--demo", "--n-modalities", 3, "--given", "m0", "m1", "m2"), "leave one to be the target"),
        (analyse, ("--demo", "--n-modalities", 3, "--translated", "--no-umap"), "translated"),
        (
            analyse,
            ("--demo", "--n-modalities", 3, "--inception", "no.pth"),
            "no.pth is missing: give pt_inception-2015",
        ),
        (analyse, ("--demo", "--inception", "no.pth", "--no-by-size"), "--inception measures FID by size"),
        (sample, ("--mixture", -1), "--mixture must not be negative, it is -1"),
        (analyse, ("--mixture", -1), "--mixture must not be negative, it is -1"),
        (
            sample,
            ("--mixture", 2, "--cluster", 1),
            "--mixture and --cluster both stand in for the prior: leave out one",
        ),
        (sample, ("--cluster", 999), "--cluster (needs a prior of clusters|must lie between 0 and 39, it is 999)"),
        (sample, ("--mixture", 2, "--given", "m0"), "and --given does not draw from the prior: leave one"),
    ],
)
def test_another_set_than_the_models_is_refused(trained, script, args, message):
    with pytest.raises(InputError, match=message):
        call(script, trained, *args)


def test_models_that_do_not_exist_are_refused(tmp_path):
    for options, message in (
        (("--model", "mvae", "--posterior", "laplace"), "there is no fusion poe for laplace experts"),
        (("--cache-dir", "x"), "--cache-dir keeps the decoded images of --images original, this set needs none"),
        (("--n-modalities", 1), "--n-modalities must lie between 2 and 10"),
        (("--n-private", 2), "--n-private needs a model with private latents, not --model mvae"),
        (("--model", "mmvae+", "--n-private", 0), "--n-private of --model mmvae. must be positive, not 0"),
        (("--missing", 1), "--missing must lie in .0, 1., it is 1.0"),
        (("--no-keep-incomplete",), "--no-keep-incomplete needs --missing above 0"),
        (("--n-clusters", 7), "--n-clusters needs a model with a prior of clusters, not --model mvae"),
        (("--limit", 60, "--model", "mvtcae", "--missing", 0.99, "--no-keep-incomplete"), "leaves none of .* complete"),
        (("--model", "cmvae", "--n-clusters", 0), "--n-clusters must be positive, not 0"),
        (("--model", "mvtcae", "--alpha", 1.5), "--alpha must lie between 0 and 1 with --obj mvtcae, it is 1.5"),
        (("--model", "jnf", "--missing", 0.2), "--model jnf needs complete examples: leave out --missing"),
        (("--model", "jnf", "--posterior", "laplace"), "there is no fusion jnf for laplace experts, only for"),
        (
            ("--model", "jnf", "--obj", "elbo"),
            "--obj elbo does not exist for --model jnf: choose jnf",
        ),
        (("--model", "mmjsd", "--posterior", "laplace"), "--obj mmjsd needs Gaussian experts, not laplace ones"),
        (("--model", "mmvae+", "--obj", "elbo"), "--model mmvae.: choose iwae, dreg, stl"),
    ):
        with pytest.raises(InputError, match=message):
            call(train, "--demo", *options, "--save-dir", tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_learns_what_its_images_look_like(tmp_path):
    """Reconstructions are nearer to test images than their median is, which is the best of all constants (Laplace)."""
    options = ("--demo", "--model", "mvae", "--networks", "conv", "--n-modalities", 2, "--n-latents", 16)
    call(train, *options, "--batch-size", 25, "--epochs", 10, "--lr", 2e-3, "--save-dir", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["valid"]["bound"] > lines[0]["valid"]["bound"] + 500
    x = load("test", data_config("", DatasetOptions(n_modalities=2), demo=True)).only(("m0", "m1"))[:].modalities
    decoded = load_model(tmp_path).reconstruct(x)
    errors, of_median = (
        sum((image - y(name)).abs().mean() for name, image in x.items())
        for y in (decoded.get, lambda name: x[name].median(dim=0).values)
    )
    assert errors < 0.85 * of_median
