"""The explorer: what it reads, what it shows, and that it works in a browser."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright

import explore
from common.checkpoints import EXPERIMENTS
from common.errors import InputError
from explore import NONE, Attributes, Choice, Explorer, Picture, Words
from tests.helpers.authors import authors_file
from tests.helpers.scripts import ROOT

OPTIONS = {
    "n_latents": 6, "model": "mvae", "posterior": "gaussian", "fusion": "poe", "teacher_forcing": False,
    "learn_prior": True, "prior_and_posterior": "laplace", "num_hidden_layers": 1, "llik_scaling": 1.0, "obj": "elbo",
}  # fmt: skip


def model_of(experiment):
    torch.manual_seed(0)
    kind = "mmvae" if experiment == "mnist_svhn" else "mvae"
    model = import_module(EXPERIMENTS[experiment]).build(SimpleNamespace(**OPTIONS | {"model": kind})).eval()
    with torch.no_grad():
        for x in model.parameters():
            x *= 2  # else what z changes may be less than a shade of gray
    return model


def test_what_is_decoded_lies_where_latents_lie(monkeypatch):
    torch.manual_seed(0)
    options = OPTIONS | {"model": "mmvae", "prior_and_posterior": "vmf"}
    model = import_module(EXPERIMENTS["mnist_svhn"]).build(SimpleNamespace(**options)).eval()
    seen = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, names: seen.append(z) or decode(z, names))
    explorer = Explorer(model, explore.VIEWS["mnist_svhn"])
    explorer.frame([None, None], 1, [3.0] * len(explorer.dimensions))
    assert all(torch.allclose(z.norm(dim=-1), torch.ones(len(z))) for z in seen) and len(seen) == 3


def nothing(view):
    return {Choice: NONE, Attributes: [NONE], Words: ""}.get(type(view))


def something(view):
    if isinstance(view, Picture):
        return Image.new("RGB", (90, 70), (255, 0, 0))
    return {Choice: lambda: view.names[-1], Attributes: lambda: [view.names[0]], Words: lambda: "42"}[type(view)]()


@pytest.mark.parametrize("experiment", explore.VIEWS)
def test_every_modality_is_given_and_shown(experiment):
    explorer = Explorer(model_of(experiment), explore.VIEWS[experiment])
    views = list(explorer.views.values())
    still, moves = [0.0] * len(explorer.dimensions), [3.0] + [0.0] * (len(explorer.dimensions) - 1)
    *without, took = explorer.frame([nothing(view) for view in views], 0, still)
    *with_, _ = explorer.frame([something(view) for view in views], 0, still)
    *moved, _ = explorer.frame([nothing(view) for view in views], 0, moves)
    *again, _ = explorer.frame([nothing(view) for view in views], 0, still)
    assert took.endswith(" ms") and len(without) == len(views) == len(explorer.model.modalities)
    for view, a, b, c, d in zip(views, without, with_, moved, again, strict=True):
        if isinstance(view, Picture):
            assert a.shape == b.shape and a.shape[0] == a.shape[1] >= explore.SHOWN and a.dtype == np.uint8
            assert (a != b).any() and (a != c).any() and np.ptp(a.astype(int) - d) <= 1
        elif not isinstance(view, Words):
            assert a.keys() == b.keys() and a != b and all(0 <= share <= 1 for share in a.values())


def test_a_draw_is_the_same_each_time_and_another_for_another_number():
    explorer = Explorer(model_of("mnist"), explore.VIEWS["mnist"])
    mean, one, again, two = (explorer.at({}, draw) for draw in (0, 1, 1, 2))
    assert torch.equal(mean, torch.zeros(1, 6)) and torch.equal(one, again) and not torch.equal(one, two)


def test_latents_that_change_the_picture_most_come_first():
    model = model_of("mnist")
    first = next(layer for layer in model.decoder["image"].modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        first.weight *= torch.tensor([1.0, 0.0, 0.1, 10.0, 0.01, 0.0])
    assert Explorer(model, explore.VIEWS["mnist"]).dimensions[:4] == [3, 0, 2, 4]


def drawing(box, background=None):
    layer = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(layer).rectangle(box, fill=(0, 0, 0, 255))
    ink = np.array(layer)
    under = None if background is None else np.array(background)
    return {"background": under, "layers": [ink], "composite": ink if under is None else under}


def test_a_drawn_digit_lies_as_those_of_mnist_do():
    x = Picture(1, 28).read(drawing((20, 40, 59, 239)))[0, 0]  # 40 wide, 200 high, at the left
    rows, columns = (torch.nonzero(x.amax(dim)).flatten() for dim in (1, 0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 12, 15)
    assert x[4:24, 12:16].min() == 1 and Picture(1, 28).read(drawing((-9, -9, -8, -8))) is None


def test_an_uploaded_picture_is_taken_as_it_is():
    x = Picture(1, 28).read(drawing((0, 0, 9, 9), Image.new("RGBA", (56, 28), (255, 255, 255, 255))))
    assert torch.equal(x, torch.ones(1, 1, 28, 28))


def test_a_cvae_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "experiment_of", lambda _: "mnist")
    model = import_module(EXPERIMENTS["mnist"]).build(SimpleNamespace(**OPTIONS | {"model": "cvae"}))
    monkeypatch.setattr(explore, "load_model", lambda _: model)
    with pytest.raises(InputError, match=r"is a CVAE, which models only p\(image\|text\): use its sample\.py"):
        explore.main(explore.Config(tmp_path))


def test_what_has_no_modalities_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "experiment_of", lambda _: "vhe")
    with pytest.raises(InputError, match=r"explore\.py cannot show models of vhe .*: use its sample\.py"):
        explore.views_of(explore.Config(tmp_path))


@pytest.fixture
def served(tmp_path):
    """The address of the explorer of the original authors' model of MNIST, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = authors_file(tmp_path / "model_best.pth.tar")
    command = [sys.executable, "-u", "explore.py", str(model), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if f"http://127.0.0.1:{port}" in line:
                break
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.slow
def test_the_page_in_a_browser(served):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 1400})
        errors, elsewhere = [], []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda r: None if re.match(rf"{served}|data:|blob:", r.url) else elsewhere.append(r.url))
        tab.goto(served)
        shown = tab.locator("img[src*='image.png']")
        expect(shown).to_be_visible(timeout=30_000)

        def changes(act):
            before = shown.get_attribute("src")
            act()
            expect(shown).not_to_have_attribute("src", before, timeout=30_000)

        slider = tab.get_by_role("slider").nth(1)
        changes(lambda: slider.press("End"))
        changes(tab.get_by_role("button", name="reset all latents").click)

        def draw():
            tab.get_by_role("button", name="Brush").click()
            box = tab.locator("canvas").first.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            tab.mouse.move(x, y - 80)
            tab.mouse.down()
            tab.mouse.move(x, y + 80, steps=8)
            tab.mouse.up()

        changes(draw)
        tab.get_by_role("button", name="Clear").click()
        changes(lambda: tab.locator("input[type=file]").first.set_input_files(ROOT / "docs" / "mnist_conditional.png"))
        assert not errors and not elsewhere
        browser.close()
