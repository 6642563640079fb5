"""mnist/halves.py, pixels.py and compare.py: images as parts, where any part may be missing."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch.distributions import kl_divergence

from common.checkpoints import load_config, load_model
from common.data import Batch
from common.errors import InputError
from common.estimators import log_marginal
from common.objectives import MvaeElbo, StandardElbo
from common.variational_posteriors import DiagonalGaussianPosterior
from common.variational_strategies import SetStrategy
from mnist import compare, halves, pixels
from mnist import sample as mnist_sample
from mnist.data import MNIST, load
from mnist.parts import commands as parts
from mnist.parts import model as part_models
from tests.helpers.data_config import data_config
from tests.helpers.scripts import run_script

OPTIONS = {
    "layout": "list",
    "decoder": "mlp",
    "fusion": "poe",
    "posterior": "gaussian",
    "n_vmfs": 1,
    "likelihood": "bernoulli",
    "learn_prior": False,
    "n_latents": 4,
    "hidden": 16,
    "layers": 1,
    "embed_dim": None,
    "likelihood_scale": None,
}
VMF = ("train", "--posterior", "vmf")
LAYOUTS = ("list", "vectorised", "pixels")


def seen(value, n):
    return parts.Observed(value)(n)


def call(script, *args):
    return script.main(tyro.cli(script.Command, args=[str(arg) for arg in args]))


def model_of(**options):
    torch.manual_seed(0)
    return part_models.build(SimpleNamespace(**OPTIONS | options)).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    call(halves, "train", "--demo", "--limit", 300, "--epochs", 3, "--save-dir", folder)
    return folder


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnt")
    call(halves, "train", "--demo", "--epochs", 25, "--save-dir", folder)
    return folder


@pytest.mark.slow
def test_halves_learn_what_goes_with_what(learnt):
    model = load_model(learnt, "halves")
    test = load("test", data_config("", demo=True))[:200].modalities["image"]
    x = part_models.inputs(model, test)
    torch.manual_seed(0)
    assert log_marginal(model, x, ("top", "bottom"), n_samples=100).mean() > -170, "untrained: -543"
    completed = model.reconstruct({"top": x["top"]})["bottom"]
    right = (completed - x["bottom"]).square().sum(dim=1).mean()
    others = (completed - x["bottom"].roll(1, 0)).square().sum(dim=1).mean()
    assert right < 0.7 * others


@pytest.mark.slow
def test_loglike_of_a_part_and_of_the_rest_given_it(learnt, tmp_path):
    args = ("loglike", learnt, "--demo", "--limit", 30, "--n-samples", 200)
    estimates = call(halves, *args, "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["estimates"] == estimates
    assert json.loads((tmp_path / "out.json").read_text())["experiment"] == "halves"
    mean = {name: estimate["mean"] for name, estimate in estimates.items()}
    top = max(mean["log p(top)"], mean["log p(top), z from q(z|top)"])
    assert mean["log p(bottom|top)"] == pytest.approx(mean["log p(image)"] - top, abs=1e-4)
    assert mean["log p(bottom|top), z from q(z|top)"] < mean["log p(bottom|top)"]
    model = load_model(learnt)
    examples = load("test", data_config("", demo=True, limit=30))
    x = part_models.inputs(model, examples[:].modalities["image"])
    torch.manual_seed(7)
    alone = log_marginal(model, x, ("top",), n_samples=2000).mean()
    assert mean["log p(top), z from q(z|top)"] == pytest.approx(alone, abs=1.5)
    other = call(halves, *args, "--observed", "bottom")
    assert other["log p(image)"] == estimates["log p(image)"]
    assert {name.split(",")[0] for name in other if "|" in name and name.startswith("log p(")} == {
        *("log p(bottom)", "log p(top|bottom)")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_pixels(layout):
    model = model_of(layout=layout, decoder="shared")
    images = torch.rand(3, 1, 28, 28)
    x = part_models.inputs(model, images)
    assert torch.equal(part_models.join(x), images)
    assert {name: tuple(part.shape[1:]) for name, part in x.items()} == part_models.SHAPES[layout]
    top = part_models.columns(model, seen("top", 3))
    assert torch.equal(
        part_models.pixels(top).expand(3, 1, 28, 28)[:, :, :14], torch.ones(3, 1, 14, 28, dtype=torch.bool)
    )
    assert not part_models.pixels(top)[:, :, 14:].any()
    decoded = part_models.join(model.reconstruct(x))
    assert decoded.shape == images.shape
    assert StandardElbo(model).bound(x).value.isfinite().all()


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
    many = SetStrategy(network)((h,), torch.stack([mask, ~mask]))
    assert many[0].shape == (2, 6, 2)
    torch.testing.assert_close(many[0][0], mu)
    assert DiagonalGaussianPosterior()(many).batch_shape == (2, 6)


def test_fractions_of_the_pixels():
    assert seen("1", 3).all() and not seen("0", 3).any()
    half = seen("0.5", 3)
    assert (half.sum(dim=1) == 392).all() and not half[0].equal(half[1])
    assert half.equal(parts.Observed("0.5", 0)(3)) and not half.equal(parts.Observed("0.5", 1)(3))


def test_pictures_are_read_as_they_are_seen(tmp_path, monkeypatch):
    """A picture of 16 bits that lies on its side: its pixels are given, and observed, at the top and the left."""
    upright = torch.zeros(28, 28)
    upright[:9], upright[:, :5] = 1, 1
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray((upright.numpy() * 65535).astype(np.uint16)).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.png", exif=exif)
    assert seen(str(tmp_path / "a.png"), 1).view(28, 28).equal(upright.bool())
    monkeypatch.setattr(mnist_sample, "load_config", lambda *_: {})
    config = SimpleNamespace(condition_on_image=str(tmp_path / "a.png"), model=None)
    image, name = mnist_sample.given_image(config, MNIST)
    assert image.equal(upright[None, None]) and name == "a.png"


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


def stripes(n):
    return ((torch.arange(part_models.N_PIXELS) + torch.randint(8, (n, 1))) % 8 < 4).float().unsqueeze(-1)


def test_pixels_train_and_complete_by_their_commands(tmp_path):
    args = ("--demo", "--limit", 60, "--missing", 0.5, "--hidden", 8, "--n-latents", 2, "--epochs", 1)
    call(pixels, "train", *args, "--approx-m", 1, "--save-dir", tmp_path)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert {"joint/pixel", "subset1/pixel", "subset1/kl"} <= set(line["train"])
    log_p = line["valid"]["joint/pixel"]
    call(pixels, "train", *args[:3], *args[5:], "--approx-m", 1, "--save-dir", tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text())["valid"]["joint/pixel"]
    assert 0.4 < log_p / whole < 0.6, "of the pixels that are there alone"
    call(pixels, "sample", tmp_path, "--demo", "--observed", "0.1", "--n-samples", 2)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"from_0_1.png", "from_top.png", "prior.png"}
    estimates = call(pixels, "loglike", tmp_path, "--demo", "--limit", 3, "--n-samples", 5, "--observed", "left")
    assert estimates["log p(left)"]["mean"] > estimates["log p(image)"]["mean"]


def test_several_spheres_train_and_are_a_sum_over_spheres(tmp_path):
    args = ("--demo", "--limit", 40, "--hidden", 8, "--epochs", 1, "--save-dir", tmp_path)
    call(halves, *VMF, "--n-vmfs", 4, "--vmf-dim", 2, *args)
    model = load_model(tmp_path).double()
    assert load_config(tmp_path)["n_latents"] == model.latent_dim == 12
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
    with pytest.raises(InputError, match="trained with --n-vmfs 4, not --n-vmfs 2"):
        call(halves, *VMF, "--n-vmfs", 2, "--vmf-dim", 5, *args[:-1], tmp_path / "b", "--pre-trained", tmp_path)


@pytest.mark.parametrize("script", [halves, pixels])
def test_an_unstructured_encoder_trains_and_evaluates(script, tmp_path):
    args = ("--demo", "--limit", 60, "--missing", 0.5, "--hidden", 8, "--n-latents", 2, "--epochs", 1)
    call(script, "train", *args, "--fusion", "unstructured", "--save-dir", tmp_path)
    model = load_model(tmp_path)
    names = [name for name, _ in model.named_parameters() if not name.startswith("decoder")]
    assert names and all(name.startswith("variational_strategy") for name in names), "no other encoder"
    images = torch.rand(2, 1, 28, 28)
    nothing, top = (
        model.posterior(Batch(part_models.inputs(model, images), given)).mean
        for given in (
            torch.zeros_like(part_models.columns(model, seen("top", 2))),
            part_models.columns(model, seen("top", 2)),
        )
    )
    assert nothing[0].equal(nothing[1]) and not top[0].equal(top[1])
    estimates = call(script, "loglike", tmp_path, "--demo", "--limit", 3, "--n-samples", 5)
    assert estimates["log p(top)"]["mean"] > estimates["log p(image)"]["mean"]


def test_options_of_the_networks_and_of_the_likelihood(tmp_path):
    args = ("--demo", "--limit", 30, "--hidden", 8, "--epochs", 1, "--layout", "vectorised", "--embed-dim", 3)
    args += ("--latent-dim", 6)
    call(halves, "train", *args, "--likelihood", "normal", "--likelihood-scale", 0.5, "--save-dir", tmp_path)
    model = load_model(tmp_path)
    assert {tuple(part["halves"].embedding.shape) for part in (model.encoder, model.decoder)} == {(2, 3)}
    z, x = torch.zeros(1, 6), torch.rand(1, 2, 392)
    p = model.decode(z)["halves"]
    known = torch.distributions.Normal(p.mean, 0.5).log_prob(x).sum()
    torch.testing.assert_close(p.log_prob(x).sum(), known)
    assert parts_config("--likelihood", "normal").likelihood_scale == 0.1, "poe-vae's"
    assert parts_config().likelihood_scale is None


def parts_config(*args):
    return tyro.cli(halves.Train, args=args)


def test_pixels_are_binarised_at_127_in_every_script(tmp_path, monkeypatch):
    """As poe-vae does; mnist/train.py's --binary draws them."""
    grey = load("test", data_config("", demo=True, limit=3)).modalities["image"]
    expected = (grey > 127).float()
    assert 0 < (grey == 127).sum() + (grey == 128).sum() < len(grey.flatten()), "both sides of the threshold"
    call(halves, "train", "--demo", "--limit", 30, "--epochs", 1, "--binary", "--save-dir", tmp_path)
    trained_on = parts.load("test", parts_config("--demo", "--limit", "3", "--binary"))[:]
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


def test_pictures(trained, tmp_path):
    call(halves, "sample", trained, "--demo", "--observed", "bottom", "--n-samples", 3, "--out-dir", tmp_path)
    call(halves, "sample", trained, "--n-samples", 5, "--out-dir", tmp_path)
    for name in ("from_bottom.png", "prior.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 300


def test_completions_keep_what_is_given(trained, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(parts.plots, "image_grid", lambda path, images, **_: seen.append(images))
    call(halves, "sample", trained, "--demo", "--observed", "top", "--n-samples", 4, "--out-dir", tmp_path)
    images = load("test", data_config("", demo=True))[:4].modalities["image"]
    (grid,) = seen  # (4, image, given, blank, 6 completions, 1, 28, 28)
    assert torch.equal(grid[:, 0], images)
    assert (grid[:, 1, :, 14:] == 0.5).all() and grid[:, 2].isnan().all()
    assert torch.equal(grid[:, 3:, :, :14], images[:, None, :, :14].expand(-1, 6, -1, -1, -1))
    assert (grid[:, 3, :, 14:] != grid[:, 4, :, 14:]).any(), "draws of the posterior"


def test_pixels_that_a_user_means(tmp_path):
    assert seen("left", 2).view(2, 28, 28)[:, :, :14].all()
    drawn = seen("0.25", 3)
    assert drawn.sum(dim=1).tolist() == [196] * 3 and not torch.equal(drawn[0], drawn[1])
    mask = np.zeros((28, 28), np.uint8)
    mask[3, 5] = 255
    mask[0, :2] = 127, 128  # where white begins
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert seen(str(tmp_path / "mask.png"), 1).nonzero().tolist() == [[0, 1], [0, 3 * 28 + 5]]


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (halves, ["train", "--posterior", "laplace"], "there is no fusion poe for laplace experts"),
        (halves, ["train", "--fusion", "moe", "--posterior", "ebm"], "there is no fusion moe for ebm experts"),
        (
            halves,
            ["train", "--fusion", "moe", "--obj", "ar"],
            "--obj ar does not exist for --fusion moe",
        ),
        (halves, ["train", "--posterior", "ebm", "--obj", "stl"], "choose mvae, elbo, iwae"),
        (halves, ["train", "--posterior", "ebm", "--obj", "iwae", "--K", "1"], "takes two samples or more: raise --K"),
        (halves, ["train", "--missing", "1"], "--missing must lie in [0, 1), it is 1.0"),
        (halves, ["train", "--approx-m", "1"], "random subsets need at least 3 modalities"),
        (halves, ["train", "--obj", "elbo", "--approx-m", "1"], "--approx-m needs --obj mvae"),
        (
            halves,
            ["train", "--posterior", "vmf", "--learn-prior"],
            "the prior of vmf experts has no scales to learn: leave out --learn-prior",
        ),
        (
            halves,
            ["train", "--learn-prior"],
            "this posterior holds the prior N(0, I), not a learned or clustered one",
        ),
        (
            halves,
            ["train", "--fusion", "moe", "--layout", "vectorised", "--obj", "elbo-importance"],
            "--obj elbo-importance does not exist",
        ),
        (halves, ["train", "--layers", "0"], "--layers must be positive, not 0"),
        (halves, ["train", "--embed-dim", "4"], "--embed-dim needs parts that share a network"),
        (
            pixels,
            ["train", "--fusion", "unstructured", "--embed-dim", "4"],
            "--embed-dim needs parts that share a network",
        ),
        (pixels, ["train", "--embed-dim", "0"], "--embed-dim must be positive, not 0"),
        (halves, ["train", "--likelihood-scale", "0.1"], "--likelihood-scale needs --likelihood normal or laplace"),
        (
            halves,
            ["train", "--likelihood", "normal", "--likelihood-scale", "0"],
            "--likelihood-scale must be positive, not 0",
        ),
        (halves, ["train", "--fusion", "unstructured", "--posterior", "ebm"], "there is no fusion unstructured for"),
        (halves, ["train", "--n-vmfs", "4"], "--n-vmfs 4 needs --posterior vmf (got gaussian)"),
        (halves, ["train", "--vmf-dim", "4"], "--n-vmfs 1 --vmf-dim 4 needs --posterior vmf (got gaussian)"),
        (halves, [*VMF, "--n-vmfs", "0"], "--n-vmfs must be positive, not 0"),
        (halves, [*VMF, "--vmf-dim", "-1"], "--vmf-dim must be positive, not -1"),
        (halves, [*VMF, "--n-vmfs", "3"], "--n-vmfs 3 needs a multiple of 3 as --n-latents, 6 or more (got 20)"),
        (
            halves,
            [*VMF, "--n-vmfs", "4", "--n-latents", "4"],
            "needs a multiple of 4 as --n-latents, 8 or more (got 4)",
        ),
        (
            halves,
            [*VMF, "--n-vmfs", "4", "--vmf-dim", "5", "--n-latents", "20"],
            "--n-vmfs 4 --vmf-dim 5 makes 24 latents: leave out --n-latents 20",
        ),
        (pixels, ["train", "--posterior", "laplace"], "there is no fusion poe for laplace experts"),
        (pixels, ["train", "--posterior", "ebm"], "784 are too many"),
        (pixels, ["train", "--obj", "ar"], "784 are too many"),
        (pixels, ["sample", "{trained}"], "is a checkpoint of halves, not of pixels"),
        (halves, ["sample", "{trained}", "--observed", "left"], "top or bottom"),
        (halves, ["sample", "{trained}", "--observed", "2"], "lies in [0, 1]"),
        (halves, ["loglike", "{trained}", "--observed", "nowhere.png"], "--observed nowhere.png is none of top"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, tmp_path, capsys, script, args, message):
    args = [arg.format(trained=trained) for arg in args]
    more = ["--epochs", "1", "--limit", "20", "--save-dir", str(tmp_path / "run")] if args[0] == "train" else []
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [*args, "--demo", *more])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_other_scripts_refuse_a_model_of_halves(trained):
    with pytest.raises(InputError, match="is a checkpoint of halves, not of mnist"):
        mnist_sample.main(tyro.cli(mnist_sample.Config, args=[str(trained)]))


def test_a_run_starts_from_another_ones_weights_and_options(trained, tmp_path, capsys):
    args = ["train", "--demo", "--limit", "20", "--epochs", "1", "--lr", "1e-9", "--pre-trained", str(trained)]
    run_script(halves, [*args, "--save-dir", str(tmp_path / "same")])
    a, b = (load_model(path).state_dict() for path in (trained, tmp_path / "same"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run_script(halves, [*args, "--fusion", "moe", "--save-dir", tmp_path / "m"])
    assert exit_.value.code == 2 and "trained with --fusion poe, not --fusion moe" in capsys.readouterr().err


def test_a_fraction_is_of_the_same_pixels_for_every_model():
    a, b = parts.Observed("0.1", 3), parts.Observed("0.1", 3)
    torch.rand(5)
    assert torch.equal(a(4), b(4)) and torch.equal(a(4), b(4))


def test_halves_have_the_same_terms_in_either_layout():
    for layout in ("list", "vectorised"):
        assert MvaeElbo(model_of(layout=layout)).subsets().int().tolist() == [[1, 0], [0, 1], [1, 1]]


def test_what_diverges_takes_one_line(tmp_path, capsys):
    args = ["train", "--demo", "--limit", "60", "--epochs", "3", "--posterior", "ebm", "--obj", "iwae", "--K", "2"]
    with pytest.raises(SystemExit) as exit_:
        run_script(halves, [*args, "--lr", "1e30", "--save-dir", str(tmp_path)])
    assert exit_.value.code == 2 and "not finite" in capsys.readouterr().err


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
    with Image.open(tmp_path / "compare_halves.png") as picture:
        assert picture.width > 300
    monkeypatch.setattr(parts, "evaluate", None)
    assert compared(*args, "--variants", "fusion=moe") == results[2:], "nothing is repeated"
    model = load_model(tmp_path / f"{options.replace(' ', '_')}_fusion=moe_seed1")
    assert results[3].n_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--variants", "obj"], "are NAME=VALUE, not 'obj'"),
        (["--variants", "posterior=laplace"], "there is no fusion poe for laplace experts"),
        (["--seeds", "1", "1"], "--seeds must name at least one, each once .got 1 1"),
        (["--variants", "obj=elbo seed=3"], "cannot set seed=3"),
        (["--options", "settings=paper"], "cannot set settings=paper"),
        (["--observed", "left"], "models of halves need top or bottom"),
        (["--n-test", "0"], "--n-test must be positive"),
    ],
)
def test_impossible_comparisons(tmp_path, args, message):
    with pytest.raises(InputError, match=message):
        compared("halves", "--demo", *args, "--save-dir", tmp_path)
    assert not any(tmp_path.iterdir()), "nothing was trained for it"


def test_the_variants_by_default_exist():
    for experiment in ("halves", "pixels"):
        compare.Config(experiment).check()
