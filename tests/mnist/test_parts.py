"""mnist/halves.py, pixels.py and compare.py: images as parts, where any part may be missing."""

import json
import math
from dataclasses import replace

from common.checkpoints import load_model
from common.data import Batch
from common.estimators import log_marginal
from common.objectives import MvaeElbo, StandardElbo
from common.variational_strategies import SetStrategy
from mnist import compare, halves, pixels
from mnist.data import load
from mnist.parts import commands as parts
from mnist.parts import model as part_models
from tests.helpers.data_config import data_config

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch.distributions import kl_divergence


def seen(value, n):
    return parts.Observed(value)(n)


def call(script, *args):
    return script.main(tyro.cli(script.Command, args=[str(arg) for arg in args]))


def model_of(**options):
    torch.manual_seed(0)
    script = pixels if options.get("layout") == "pixels" else halves
    return part_models.build(script.Train(**{"n_latents": 4, "hidden": 16} | options)).eval()


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    call(halves, "train", "--demo", "--epochs", 25, "--save-dir", folder)
    return folder


def test_halves_learn_what_goes_with_what(halved):
    model = load_model(halved, "halves")
    test = load("test", data_config("", demo=True))[:200].modalities["image"]
    x = part_models.inputs(model, test)
    torch.manual_seed(0)
    assert log_marginal(model, x, ("top", "bottom"), n_samples=100).mean() > -170, "untrained: -543"
    completed = model.reconstruct({"top": x["top"]})["bottom"]
    right = (completed - x["bottom"]).square().sum(dim=1).mean()
    others = (completed - x["bottom"].roll(1, 0)).square().sum(dim=1).mean()
    assert right < 0.7 * others


def test_loglike_of_a_part_and_of_the_rest_given_it(halved):
    args = ("loglike", halved, "--demo", "--limit", 30, "--n-samples", 200)
    rows, other = call(halves, *args), call(halves, *args, "--observed", "bottom")
    mean = {name: estimate["mean"] for name, estimate in rows.items()}
    top = max(mean["log p(top)"], mean["log p(top), z from q(z|top)"])
    assert mean["log p(bottom|top)"] == pytest.approx(mean["log p(image)"] - top, abs=1e-4)
    assert mean["log p(bottom|top), z from q(z|top)"] < mean["log p(bottom|top)"]
    model, examples = load_model(halved), load("test", data_config("", demo=True, limit=30))
    x = part_models.inputs(model, examples[:].modalities["image"])
    for part, found in (("top", rows), ("bottom", other)):
        alone = log_marginal(model, x, (part,), n_samples=2000).mean()
        assert found[f"log p({part}), z from q(z|{part})"]["mean"] == pytest.approx(alone, abs=1.5)
    assert other["log p(image)"] == rows["log p(image)"] and "log p(top|bottom)" in other


@pytest.mark.parametrize("layout", part_models.SHAPES)
def test_layouts_hold_the_same_pixels(layout):
    model = model_of(layout=layout, decoder="shared")
    images = torch.rand(3, 1, 28, 28)
    x = part_models.inputs(model, images)
    assert torch.equal(part_models.join(x), images)
    assert {name: tuple(part.shape[1:]) for name, part in x.items()} == part_models.SHAPES[layout]
    top = part_models.columns(model, seen("top", 3))
    assert part_models.pixels(top)[:, :, :14].all() and not part_models.pixels(top)[:, :, 14:].any()
    assert part_models.join(model.reconstruct(x)).shape == images.shape
    if layout != "pixels":
        assert [x.int().tolist() for x in MvaeElbo(model).subsets().values()] == [[1, 0], [0, 1], [1, 1]], "the same"


def test_what_is_not_observed_says_nothing():
    for options in ({"layout": "pixels"}, {"layout": "pixels", "fusion": "set"}, {"layout": "vectorised"}):
        model = model_of(**options)
        images = torch.rand(2, 1, 28, 28)
        other = torch.cat([torch.rand(2, 1, 14, 28), images[:, :, 14:]], dim=2)
        found = []
        for x in (images, other):
            given = part_models.columns(model, seen("bottom", 2))
            torch.manual_seed(0)
            inputs = part_models.inputs(model, x)
            (estimate,) = parts.importance_estimates(model, inputs, [given], given, 5)
            found.append(estimate.value)
        torch.testing.assert_close(*found)


def test_a_set_encoder_adds_up_what_is_there():
    """partial-VAE: g(sum of h), of the elements observed, whatever their order."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), part_models.SplitLinearLayer(4, (2, 2))).double()
    h, mask = torch.randn(5, 6, 3).double(), torch.rand(6, 5) < 0.5
    mu, logvar = SetStrategy(network)((h,), mask)
    for b in range(6):
        known = network(h[mask[b], b].sum(dim=0, keepdim=True))
        torch.testing.assert_close((mu[b], logvar[b]), (known[0][0], known[1][0]))
    order = torch.randperm(5)
    torch.testing.assert_close(SetStrategy(network)((h[order],), mask[:, order])[0], mu)
    torch.testing.assert_close(SetStrategy(network)((h,), torch.stack([mask, ~mask]))[0][0], mu)


def test_what_one_of_many_pixels_adds_is_scaled():
    """Natural parameters over sqrt(n), precisions over n: a product of n like experts is no narrower than one."""
    n, mu, logvar = 784, torch.randn(3, 2).double(), torch.randn(3, 2).double()
    scaled_mu, scaled_logvar = part_models.OneOfMany(n, gaussian=True)((mu, logvar))
    precision, scaled = (-logvar).exp(), (-scaled_logvar).exp()
    torch.testing.assert_close(n * scaled, precision)
    torch.testing.assert_close(scaled_mu * scaled * n**0.5, mu * precision)
    for x in (mu, (mu,)):
        torch.testing.assert_close(part_models.OneOfMany(n, gaussian=False)(x), (mu / 28,))


@pytest.mark.slow
@pytest.mark.parametrize(("fusion", "posterior"), [("poe", "gaussian"), ("set", "gaussian"), ("poe", "vmf")])
def test_pixels_learn_from_those_that_are_there(fusion, posterior):
    """Stripes of one of eight phases, of whose pixels half are missing in training, are told by a fifth of them."""
    model = model_of(layout="pixels", fusion=fusion, posterior=posterior, hidden=32).train()
    objective, optimizer = StandardElbo(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        x = stripes(20)
        optimizer.zero_grad()
        objective({"pixel": x.masked_fill(torch.rand_like(x) < 0.5, torch.nan)}).backward()
        optimizer.step()
    x = stripes(50)
    given = x.masked_fill(torch.rand_like(x) < 0.8, torch.nan)
    completed = model.eval().reconstruct({"pixel": given})["pixel"]
    assert ((completed > 0.5) == (x > 0.5)).float().mean() > 0.9
    assert given.isnan().float().mean() > 0.7, "the caller's tensor is left as it is"


def test_a_fraction_of_the_training_pixels_is_missing():
    config = pixels.Train(demo=True, limit=20, missing=0.5)
    mask, whole = parts.load("train", config).mask, parts.load("train", replace(config, missing=0.0))
    assert mask.shape == (20, 784) and 0.48 < mask.float().mean() < 0.52 and whole.mask is None
    assert mask.equal(parts.load("train", config).mask)
    assert not mask.equal(parts.load("train", replace(config, seed=1)).mask)


def stripes(n):
    return ((torch.arange(part_models.N_PIXELS) + torch.randint(8, (n, 1))) % 8 < 4).float().unsqueeze(-1)


def test_the_density_of_several_spheres_is_a_product_over_spheres():
    model = model_of(posterior="vmf", n_vmfs=4, vmf_dim=2, n_latents=None).double()
    assert model.latent_dim == 12
    x = {name: torch.rand(3, 392).double() for name in model.modalities}
    q, z = model.posterior(x), model.posterior(x).sample((5,))
    spheres = z.unflatten(-1, (4, 3))
    torch.testing.assert_close(spheres.norm(dim=-1), torch.ones(5, 3, 4).double())
    experts = 3 * torch.stack([model.encoder[name](x[name])[0] for name in x]).unflatten(-1, (4, 3))
    eta = experts.sum(dim=0)  # (B, spheres, 3), the product's natural parameters
    kappa = eta.norm(dim=-1)
    log_p = (eta * spheres).sum(dim=-1) - (4 * math.pi * kappa.sinh() / kappa).log()  # on the sphere in R^3
    torch.testing.assert_close(q.log_prob(z), log_p.sum(dim=-1))
    kl = kappa / kappa.tanh() - 1 - (kappa.sinh() / kappa).log()
    torch.testing.assert_close(kl_divergence(q, model.prior()), kl.sum(dim=-1))
    torch.testing.assert_close(model.prior().log_prob(z[0]), torch.full((3,), -4 * math.log(4 * math.pi)).double())


@pytest.mark.parametrize("layout", ["list", "pixels"])
def test_an_unstructured_encoder_sees_what_is_given(layout):
    model = model_of(layout=layout, fusion="unstructured")
    names = [name for name, _ in model.named_parameters() if not name.startswith("decoder")]
    assert names and all(name.startswith("variational_strategy") for name in names), "no other encoder"
    images = torch.rand(2, 1, 28, 28)
    given = part_models.columns(model, seen("top", 2))
    x = part_models.inputs(model, images)
    nothing, top = (model.posterior(Batch(x, mask)).mean for mask in (torch.zeros_like(given), given))
    assert nothing[0].equal(nothing[1]) and not top[0].equal(top[1])


def test_options_of_the_networks_and_of_the_likelihood():
    model = model_of(layout="vectorised", embed_dim=3, likelihood="normal", likelihood_scale=0.5)
    assert {tuple(part["halves"].embedding.shape) for part in (model.encoder, model.decoder)} == {(2, 3)}
    z, x = torch.zeros(1, 4), torch.rand(1, 2, 392)
    p = model.decode(z)["halves"]
    torch.testing.assert_close(p.log_prob(x).sum(), torch.distributions.Normal(p.mean, 0.5).log_prob(x).sum())
    assert halves.Train(likelihood="normal").likelihood_scale == 0.1, "poe-vae's"


def test_pixels_are_binarised_at_127_in_every_script(tmp_path, monkeypatch):
    """As poe-vae does; mnist/train.py's --binary draws them."""
    grey = load("test", data_config("", demo=True, limit=3)).modalities["image"]
    expected = (grey > 127).float()
    call(halves, "train", "--demo", "--limit", 30, "--epochs", 1, "--binary", "--save-dir", tmp_path)
    trained_on = parts.load("test", halves.Train(demo=True, limit=3, binary=True))[:]
    assert torch.equal(part_models.join(trained_on.modalities), expected)
    seen = []
    monkeypatch.setattr(parts, "complete", lambda model, images, *_: seen.append(images))
    monkeypatch.setattr(
        parts, "evaluate", lambda model, examples, *_, **__: seen.append(examples[:].modalities["image"])
    )
    monkeypatch.setattr(parts.tables, "report_estimates", lambda *_: None)
    call(halves, "sample", tmp_path, "--demo", "--observed", "top", "--n-samples", 3, "--out-dir", tmp_path)
    call(halves, "loglike", tmp_path, "--demo", "--limit", 3)
    assert len(seen) == 2 and all(torch.equal(images, expected) for images in seen)


def test_completions_keep_what_is_given(halved, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(parts.plots, "image_grid", lambda path, images, **_: seen.append(images))
    call(halves, "sample", halved, "--demo", "--observed", "top", "--n-samples", 4, "--out-dir", tmp_path)
    images = load("test", data_config("", demo=True))[:4].modalities["image"]
    (grid,) = seen  # (4, image, given, blank, 6 completions, 1, 28, 28)
    assert torch.equal(grid[:, 0], images)
    assert (grid[:, 1, :, 14:] == 0.5).all() and grid[:, 2].isnan().all()
    assert torch.equal(grid[:, 3:, :, :14], images[:, None, :, :14].expand(-1, 6, -1, -1, -1))
    assert (grid[:, 3, :, 14:] != grid[:, 4, :, 14:]).any(), "draws of the posterior"


def test_pixels_that_a_user_means(tmp_path):
    assert seen("left", 2).view(2, 28, 28)[:, :, :14].all()
    assert seen("1", 3).all() and not seen("0", 3).any()
    drawn = seen("0.25", 3)
    assert drawn.sum(dim=1).tolist() == [196] * 3 and not torch.equal(drawn[0], drawn[1])
    torch.rand(5)
    assert drawn.equal(parts.Observed("0.25", 0)(3)) and not drawn.equal(parts.Observed("0.25", 1)(3))
    mask = np.zeros((28, 28), np.uint8)
    mask[3, 5] = 255
    mask[0, :2] = 127, 128  # where white begins
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert seen(str(tmp_path / "mask.png"), 1).nonzero().tolist() == [[0, 1], [0, 3 * 28 + 5]]


def compared(*args):
    return compare.main(tyro.cli(compare.Config, args=[str(arg) for arg in args]))


def test_a_comparison_and_its_table(tmp_path, capsys, monkeypatch):
    options = "epochs=1 limit=60 hidden=16 n-latents=4"
    few = ("--seeds", 0, 1, "--n-test", 10, "--n-samples", 10, "--jobs", 1, "--save-dir", tmp_path)
    args = ("halves", "--demo", "--options", options, *few)
    results = compared(*args, "--variants", "posterior=vmf obj=dreg K=3", "fusion=moe")
    assert [(r.variant, r.seed) for r in results] == [
        *(("posterior=vmf obj=dreg K=3", 0), ("posterior=vmf obj=dreg K=3", 1)),
        *(("fusion=moe", 0), ("fusion=moe", 1)),
    ]
    values = torch.tensor([r.estimates["log p(image)"] for r in results[2:]]).double()
    row = f"| `fusion=moe` | {values.mean():.2f} ± {values.std():.2f} |"
    assert row in capsys.readouterr().out and row in (tmp_path / "compare_halves.md").read_text()
    assert len(json.loads((tmp_path / "compare_halves.json").read_text())["results"]) == 4
    monkeypatch.setattr(parts, "evaluate", None)
    assert compared(*args, "--variants", "fusion=moe") == results[2:], "nothing is repeated"
    model = load_model(tmp_path / f"{options.replace(' ', '_')}_fusion=moe_seed1")
    assert results[3].n_parameters == sum(p.numel() for p in model.parameters())
