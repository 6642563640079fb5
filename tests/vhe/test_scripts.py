"""loglike.py, analyse.py and sample.py of vhe/: models whose answers are known, and small ones of the demo's data."""

import math
from pathlib import Path
from types import SimpleNamespace

from common import checkpoints
from common.errors import InputError
from common.io import save_tensors
from tests.helpers.data_config import data_config
from tests.helpers.homoencoders import Code, Noisy, characters_of, exact_log_p, model_of, sets_of
from tests.helpers.scripts import call
from vhe import VHE, analyse, loglike, sample, train, trained_model
from vhe.data import load
from vhe.model import Images, IndependentPixels, build

import pytest
import torch
from PIL import Image
from torch import nn


def accuracies(images, tau, **options):
    """Accuracies on images (N, n, 1) = c + N(0, 1), c ~ N(0, tau^2), by the exact posterior given one example."""
    model = VHE(Code(tau**2 / (1 + tau**2), tau**2 / (1 + tau**2)), Noisy())
    return analyse.accuracies(model, characters_of(images), analyse.Config(Path(), k_shot=1, **options))


def test_separated_characters_are_classified():
    images = 100 * torch.arange(30.0)[:, None, None] + torch.randn(30, 4, 1)
    found = accuracies(images, 1000.0, n_way=20, episodes=5, n_queries=3, n_samples=5)  # all images of each
    assert found.tolist() == [1.0] * 5


@pytest.mark.parametrize(("p", "n"), [(0.0, 10), (0.3, 50), (1.0, 100)])
def test_intervals_hold_the_shares_that_make_what_was_found_likely(p, n):
    """Wilson's: the true shares from which p is 1.96 standard deviations away, by a grid."""
    q = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    inside = q[(p - q).abs() <= 1.96 * (q * (1 - q) / n).sqrt()]
    found = analyse.interval(p, n)
    assert (found["low"], found["high"]) == pytest.approx((inside.min().item(), inside.max().item()), abs=1e-5)


@pytest.mark.slow
def test_accuracy_that_is_known():
    """The nearer example of two is right: P(|x - y_1| < |x - y_2|) of Gaussian differences, by Sheppard's formula."""
    tau = 2.0
    images = tau * torch.randn(2000, 1, 1) + torch.randn(2000, 2, 1)
    share = accuracies(images, tau, n_way=2, episodes=1000, n_samples=100).mean().item()
    found = analyse.interval(share, 2000)
    rho = 2 * tau**2 / math.sqrt((2 * tau**2 + 4) ** 2 - 4)
    half = (found["high"] - found["low"]) / 2
    assert half < 0.03
    assert share == pytest.approx(0.5 + math.asin(rho) / math.pi, abs=2 * half)


@pytest.mark.slow
def test_log_likelihoods_that_are_known():
    """For data that a linear-Gaussian model made they are minus the entropies, up to the spread of the data."""
    sets = sets_of(225, 4)
    model = model_of()
    model.register_parameter("on_the_cpu", nn.Parameter(torch.zeros(())))
    config = loglike.Config(Path(), n_samples=30, k_shot=(1, 3), set_size=4)
    found = loglike.evaluate(model, characters_of(sets), config, k_shot=4)
    torch.testing.assert_close(found["log p(image)"], exact_log_p(sets.flatten(0, 1)[:, None]))
    torch.testing.assert_close(found["log p(character)/4"].sort().values, (exact_log_p(sets) / 4).sort().values)
    assert (found["effective samples, log p(character)/4"] - 3).abs().max() < 1e-6
    for k, name in ((1, "log p(image|1 other)"), (3, "log p(image|3 others)")):
        expected = entropy(k) - entropy(k + 1)
        error = found[name].std() / 15  # as if the images of a character were one
        assert found[name].mean().item() == pytest.approx(expected, abs=4 * error.item())
    difference = found["bound"].view(225, 4).mean(dim=1) - exact_log_p(sets) / 4
    assert difference.mean().item() == pytest.approx(0, abs=4 * difference.std().item() / 15)
    expected = found["bound: log p(image|c, z)"] - found["bound: KL of c"] / 4 - found["bound: KL of z"]
    torch.testing.assert_close(found["bound"], expected)


def entropy(n):
    """The entropy of n images of a character, nats: half a nat a dimension above -log p at the mean."""
    return 3 * n / 2 - exact_log_p(torch.zeros(1, n, 3).double()).item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "decoder"), [("hierarchical", "deconv"), ("factorial", "deconv"), ("character", "pixelcnn")]
)
def test_other_models_than_the_demos_are_scored(tmp_path, kind, decoder):
    config = {"model": kind, "decoder": decoder, "n_latents": 4, "k_shot": 5, "test_alphabets": []}
    state = {"experiment": "vhe", "config": config, "state_dict": build(SimpleNamespace(**config)).state_dict()}
    save_tensors(tmp_path / checkpoints.BEST, state)
    options = ("--demo", "--limit", "3", "--n-samples", "2")
    found = call(loglike, tmp_path, *options)
    names = ("log p(image)", "log p(image|1 other)", "log p(image|5 others)", "log p(character)/20", "bound")
    assert all(math.isfinite(found[name]["mean"]) for name in names)
    assert 0 <= call(analyse, tmp_path, *options, "--n-way", "3", "--episodes", "3")["mean"] <= 1
    call(sample, tmp_path, "--new", "characters", "--n-samples", "1", "--out-dir", tmp_path)


@pytest.fixture
def shown(trained, monkeypatch):
    """What is drawn, instead of the picture."""
    trained("vhe")  # with its pictures
    grids = []
    monkeypatch.setattr(sample.plots, "image_grid", lambda path, images, *args, **kwargs: grids.append(1 - images))
    return grids


class Brightness(Images):
    """Images of one brightness, of the first dimension of the code or of z."""

    def __init__(self, of_code):
        nn.Module.__init__(self)
        self.of_code, self.pixels = of_code, IndependentPixels(1)

    def mean(self, code, z):
        return (code if self.of_code else z)[:, :1, None, None].expand(-1, 1, 28, 28)


def telling(monkeypatch, kind, of_code):
    """A model whose images show their code."""
    options = {"model": kind, "decoder": "deconv", "n_latents": 4, "k_shot": 5, "test_alphabets": []}
    model = build(SimpleNamespace(**options)).eval()
    model.decoder.images = Brightness(of_code)
    monkeypatch.setattr(sample, "load_trained", lambda config: (model, options))
    return model


def test_test_characters_are_those_that_the_training_left_out(monkeypatch):
    asked = []
    monkeypatch.setattr(trained_model, "load", lambda split, config, alphabets: asked.append((split, alphabets)))
    for demo in (False, True):
        trained_model.load_test(SimpleNamespace(demo=demo), {"test_alphabets": ["Greek"]})
    assert asked == [("test", ["Greek"]), ("test", [])]


def test_the_papers_task_and_the_readmes_settings_are_the_defaults():
    task, settings = analyse.Config(Path()), train.Config()
    assert (task.n_way, task.k_shot, task.n_queries) == (20, 5, 1)
    assert (settings.n_latents, settings.batch_size, settings.epochs, settings.lr) == (64, 100, 40, 1e-3)
    assert settings.rotations


class Ink(nn.Module):
    """A code (4,) that is the share of ink of a support set, and that is certain."""

    def forward(self, inputs, value=None):
        return inputs.flatten(1).mean(dim=1, keepdim=True).expand(-1, 4), torch.zeros(len(inputs))


def test_examples_have_the_code_of_what_is_given(monkeypatch, shown):
    model = telling(monkeypatch, "character", of_code=True)
    model.encoder["c"] = Ink()
    call(sample, "-", "--demo", "--n-samples", "3")
    (grid,) = shown
    given, empty, new = grid[:, :5], grid[:, 5], grid[:, 6:]
    assert new.shape == (8, 3, 1, 28, 28) and empty.isnan().all()
    torch.testing.assert_close(new, given.mean(dim=(1, 2, 3, 4))[:, None, None, None, None].expand_as(new))
    test = load("test", data_config(Path(), demo=True))
    of = [(test.images[:, None] == row).all(dim=(2, 3, 4)).int().argmax(dim=0) for row in given]
    characters = torch.stack([test.character[rows] for rows in of])
    assert (characters == characters[:, :1]).all() and len(characters[:, 0].unique()) == 8
    assert len(torch.stack(of).unique()) == 40


@pytest.mark.parametrize("of_code", [True, False])
def test_new_characters_have_a_code_a_row(monkeypatch, shown, of_code):
    telling(monkeypatch, "hierarchical", of_code)
    call(sample, "-", "--new", "characters")
    (grid,) = shown
    values = grid[:, :, 0, 0, 0]
    assert values.shape == (8, 8)
    assert len(values.unique()) == (8 if of_code else 64)
    assert not of_code or (values == values[:, :1]).all()


def test_new_alphabets_have_a_code_a_row(monkeypatch, shown):
    """Characters of a row differ, and are alike by the prior given their alphabet."""
    model = telling(monkeypatch, "hierarchical", of_code=True)
    seen = []
    model.prior["c"].register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["a"]), with_kwargs=True)
    call(sample, "-", "--new", "alphabets", "--n-samples", "5")
    assert len(shown[0][:, :, 0, 0, 0].unique()) == 40
    a = seen[0].view(8, 5, -1)
    assert (a == a[:, :1]).all() and len(a[:, 0, 0].unique()) == 8


def test_characters_of_an_alphabet(monkeypatch, shown):
    model = telling(monkeypatch, "hierarchical", of_code=True)
    seen = []
    model.encoder["a"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    call(sample, "-", "--demo", "--alphabet", "test03", "--n-samples", "2")
    test = load("test", data_config(Path(), demo=True))
    of = (test.images[:, None] == seen[0].flatten(0, 1)).all(dim=(2, 3, 4)).int().argmax(dim=0)
    assert seen[0].shape == (8, 5, 1, 28, 28) and {test.alphabets[i] for i in test.alphabet[of]} == {"test03"}
    values = shown[0][:, 6:, 0, 0, 0]
    assert (values == values[:, :1]).all() and len(values.unique()) == 8
    torch.testing.assert_close(shown[0][:, :5], seen[0])
    with pytest.raises(InputError, match="there is no test alphabet 'Greek': choose from test01, test02"):
        call(sample, "-", "--demo", "--alphabet", "Greek")


def test_a_picture_of_styles_takes_each_from_its_column(monkeypatch, shown):
    """Columns in the style of what is above, rows of the character at the left."""
    model = telling(monkeypatch, "factorial", of_code=True)
    model.encoder["c"] = Ink()
    model.encoder["s"] = Ink()
    call(sample, "-", "--demo", "--new", "styles")
    values = shown[0][1:, 6:, 0, 0, 0]
    assert values.shape == (8, 5) and (values == values[:, :1]).all() and len(values.unique()) > 4
    model.decoder.images.mean = lambda code, z: code[:, -1:, None, None].expand(-1, 1, 28, 28)
    call(sample, "-", "--demo", "--new", "styles")
    values = shown[1][1:, 6:, 0, 0, 0]
    assert (values == values[:1]).all() and values[0].argmax() == 4  # inverted has most ink


def test_given_images(trained, tmp_path, shown):
    run, options = trained("vhe"), ("--out-dir", tmp_path)
    test = load("test", data_config(Path(), demo=True))
    Image.fromarray((255 * (1 - test.images[7, 0])).byte().numpy()).save(tmp_path / "mine.png")
    call(sample, run, "--demo", "--given", tmp_path / "mine.png", test.ids[30], *options)
    torch.testing.assert_close(shown[0][0, :2], test.images[[7, 30]])
    call(sample, run, "--given", tmp_path / "mine.png", *options)  # needs no data
    assert shown[1].shape == (1, 1 + 1 + 8, 1, 28, 28)


def test_errors_of_estimates_count_characters(monkeypatch):
    characters = characters_of(sets_of(5, 4))
    values = torch.randn(5, 4).double()
    monkeypatch.setattr(loglike, "load_trained", lambda config: (None, {"k_shot": 1}))
    monkeypatch.setattr(loglike, "load_test", lambda *_: characters)
    monkeypatch.setattr(loglike, "evaluate", lambda *_: {"log p(image)": values.flatten()})
    reported = []
    monkeypatch.setattr(
        loglike.tables,
        "report_estimates",
        lambda values, *_, groups=None: reported.append(loglike.tables.summarise(values, groups)["log p(image)"]),
    )
    loglike.main(loglike.Config(Path("x"), demo=True))
    assert reported[0]["stderr"] == pytest.approx((values.mean(dim=1).std() / 5**0.5).item())
