"""The explorer: what it reads, what it shows, and that it works in a browser."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from io import BytesIO
from types import SimpleNamespace

import explore
from common.checkpoints import BEST, EXPERIMENTS, LAST, load
from common.errors import InputError
from tests.helpers.authors import authors_file
from tests.helpers.scripts import ROOT
from tools.exploration import examples, pictures, server
from tools.exploration.explorer import Explorer
from tools.exploration.page import N_IN_VIEW, call_type, page
from tools.exploration.views import NO_ATTRIBUTE, NONE, SHOWN, VIEWS, Attributes, Choice, Picture, Words

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright
from starlette.testclient import TestClient

OPTIONS = {
    "n_latents": 6, "model": "mvae", "posterior": "gaussian", "fusion": "poe", "teacher_forcing": False,
    "learn_prior": True, "prior_and_posterior": "laplace", "num_hidden_layers": 1, "llik_scaling": 1.0, "obj": "elbo",
    "n_modalities": 3, "n_private": None, "n_clusters": None, "rho": None, "networks": "conv", "quadrant": False,
}  # fmt: skip


def build(experiment, **options):
    torch.manual_seed(0)
    return import_module(EXPERIMENTS[experiment]).build(SimpleNamespace(**OPTIONS | options)).eval()


def model_of(experiment):
    model = build(experiment, model="mmvae" if experiment == "mnist_svhn" else "mvae")
    with torch.no_grad():
        for x in model.parameters():
            x *= 2  # else what z changes may be less than a shade of gray
    return model


def test_what_is_decoded_lies_where_latents_lie(monkeypatch):
    model, seen = build("mnist_svhn", model="mmvae", prior_and_posterior="vmf"), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, names: seen.append(z) or decode(z, names))
    explorer = Explorer(model, VIEWS["mnist_svhn"])
    explorer.frame([None, None], 1, [3.0] * len(explorer.dimensions))
    assert all(torch.allclose(z.norm(dim=-1), torch.ones(len(z))) for z in seen) and len(seen) == 3
    assert explorer.frame([None, None], 1, []) == explorer.frame([None, None], 1, [0.0])


@pytest.mark.parametrize("options", [{"model": "dmvae", "n_private": (1, 2)}, {"model": "jnf"}])
def test_models_with_private_latents_or_flows_are_explored(options):
    model = build("mnist_svhn", learn_prior=False, prior_and_posterior="normal", **options)
    explorer = Explorer(model, VIEWS["mnist_svhn"])
    shown = figures(explorer.frame([uri(Image.new("L", (28, 28), 255)), None], 0, [3.0] * len(explorer.dimensions)))
    assert [pixels_of(tag).shape[2] for tag in shown.values()] == [3, 3]


def uri(image, **options):
    """A picture as the page sends it."""
    content = BytesIO()
    image.save(content, "PNG", **options)
    return pictures.START + base64.b64encode(content.getvalue()).decode()


def figures(content):
    """What a model's HTML shows of each modality."""
    return dict(re.findall(r"<figure><figcaption>(.*?)</figcaption>(.*?)</figure>", content))


def shares_of(content):
    """The names that a figure shows, with their percentages."""
    return dict(re.findall(r'<li style="--share: \d+%">(.*?) <b>(\d+) %</b></li>', content))


def pixels_of(tag):
    """The picture that a figure shows, (H, W, 3)."""
    encoded = re.fullmatch(rf'<img alt="decoded" src="{pictures.START}([^"]*)">', tag)[1]
    return np.array(Image.open(BytesIO(base64.b64decode(encoded))))


GIVEN = {"multimnist": ["", "42"], "translation": ["forty-two", "quarante-deux"]}  # and first what others are given
NOTHING = {Choice: NONE, Attributes: [], Words: "", Picture: ""}


def something(view):
    if isinstance(view, Picture):
        return uri(Image.new("RGB", (90, 70), (255, 0, 0)))
    return view.names[-1] if isinstance(view, Choice) else [view.names[0]]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", VIEWS)
def test_every_modality_is_given_and_shown(experiment):
    explorer = Explorer(model_of(experiment), VIEWS[experiment])
    views, n = list(explorer.views.values()), len(explorer.dimensions)
    nothing = [NOTHING[type(view)] for view in views]
    given = GIVEN.get(experiment) or [something(view) for view in views]
    calls = [(nothing, [0.0] * n), (given, [0.0] * n), (nothing, [3.0] + [0.0] * (n - 1))]
    without, with_, moved = (figures(explorer.frame(what, 0, moves)) for what, moves in calls)
    assert set(without) == set(explorer.views) == set(explorer.model.modalities)
    for name, view in explorer.views.items():
        if isinstance(view, Picture):
            a, b, c = (pixels_of(shown[name]) for shown in (without, with_, moved))
            assert a.shape[0] == a.shape[1] >= SHOWN and (experiment == "multimnist" or (a != b).any())
            assert (a != c).any()
        elif isinstance(view, Words):
            assert re.fullmatch("<p>.*</p>", without[name], re.DOTALL)
        else:
            assert (with_[name], moved[name]) != (without[name], without[name])
            assert set(shares_of(with_[name])) <= set(view.names)


def test_no_attribute_given_differs_from_all_of_them_no():
    view = VIEWS["celeba"]["attrs"]
    assert view.read([]) is None and not view.read([NO_ATTRIBUTE]).any() and view.read([view.names[2]])[0, 2] == 1


def test_a_draw_is_the_same_each_time_and_another_for_another_number():
    explorer = Explorer(model_of("mnist"), VIEWS["mnist"])
    mean, one, again, two = (explorer.at({}, draw) for draw in (0, 1, 1, 2))
    assert torch.equal(mean, torch.zeros(1, 6)) and torch.equal(one, again) and not torch.equal(one, two)


def test_latents_that_change_the_picture_most_come_first():
    model = model_of("mnist")
    first = next(layer for layer in model.decoder["image"].modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        first.weight *= torch.tensor([1.0, 0.0, 0.1, 10.0, 0.01, 0.0])
    assert Explorer(model, VIEWS["mnist"]).dimensions[:4] == [3, 0, 2, 4]


def drawing(box):
    layer = Image.new("RGBA", (pictures.SIDE, pictures.SIDE))
    ImageDraw.Draw(layer).rectangle(box, fill=(0, 0, 0, 255))
    return uri(layer)


def test_drawings_and_uploads_are_read():
    assert Picture(1, 28).read(drawing((-9, -9, -8, -8))) is None, "nothing is drawn"
    x = Picture(1, 50).read(drawing((0, 0, 139, 279)))[0, 0]
    assert x[:, :24].min() == 1 and x[:, 26:].max() == 0, "it lies as it was drawn"
    upload = uri(Image.new("RGBA", (56, 28), (255, 255, 255, 255)))
    assert Picture(1, 28).read(upload).equal(torch.ones(1, 1, 28, 28)), "it is taken as it is"


def damaged(content):
    return pictures.START + base64.b64encode(content).decode()


PNG = base64.b64decode(uri(Image.new("L", (8, 8)))[len(pictures.START) :])
DAMAGED = "the picture is damaged or not an image"
UNREADABLE = {
    "text": ("hello", "a picture is given as data:image/png;base64,..., not as 'hello'"),
    "cut off": (damaged(PNG[:45]), DAMAGED),
    "4.01 megapixels": (uri(Image.new("1", (2005, 2000))), "the picture has 2,005 x 2,000 pixels, more than 4,000,000"),
    "64.01 megapixels": (uri(Image.new("1", (8001, 8000))), "the picture has 8,001 x 8,000 pixels"),
}


REFUSED = [  # a model's experiment and its options, as far as they matter
    ("mnist", {"model": "cvae"}, r"is a CVAE, which models an image only given its label: use its sample\.py"),
    ("polymnist", {"n_modalities": 2}, "has the modalities m0, m1, .* m0, m1, m2: give models of the same modalities"),
    (
        "polymnist",
        {"quadrant": True},
        r"was trained with --quadrant, and the page shows 28 x 28 pixels: use its sample\.py",
    ),
]


@pytest.mark.parametrize(("experiment", "options", "message"), REFUSED)
def test_models_that_the_page_cannot_show_are_refused(experiment, options, message, tmp_path, monkeypatch):
    changes = {tmp_path / "usual": {}, tmp_path / "other": options}
    monkeypatch.setattr(explore, "experiment_of", lambda path: experiment)
    monkeypatch.setattr(explore, "load_model", lambda path: build(experiment, **changes[path]))
    monkeypatch.setattr(explore.server, "listen", lambda port: contextlib.nullcontext())
    with pytest.raises(InputError, match=message):
        explore.main(explore.Config(tuple(changes)))


def test_the_best_model_is_shown_not_the_last(trained, tmp_path):
    folder = shutil.copytree(trained("mnist"), tmp_path / "run")
    best = load(folder / BEST)
    torch.save(best | {"state_dict": {name: x + 1 for name, x in best["state_dict"].items()}}, folder / LAST)
    shown = explore.load(folder, explore.Config((folder,)))[0].model.state_dict()
    assert all(shown[name].equal(x) for name, x in best["state_dict"].items())


def test_a_port_in_use_is_refused():
    message = "Address already in use: choose another port"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match=message):
        server.listen(taken.getsockname()[1])


HOME = "http://127.0.0.1:7860"
FRAME = "/gradio_api/run/predict"


@pytest.fixture(scope="module")
def client():
    """A browser's requests to the explorer of two small models of MNIST."""
    first, second = (Explorer(model_of("mnist"), VIEWS["mnist"]) for _ in range(2))
    second.dimensions = second.dimensions[::-1]
    explorers = {"one": first, "<script>alert('two')": second}
    make_page = partial(page, explorers, "a <script>alert('model')</script>", examples.load("mnist"))

    async def make():  # outside a loop gradio would make some and leave them open
        return server.application(make_page, call_type(explorers))

    with TestClient(asyncio.run(make()), base_url=HOME) as client:
        yield client


FN_INDEX = 10  # of the load event, after the click of reset and the changes of 2 modalities, the draw and 6 latents


def values(picture="", moves=(0,) * 6):
    """What the page sends when it loads, or after a change."""
    return {"data": [picture, NONE, 0, *moves], "fn_index": FN_INDEX, "session_hash": "a", "trigger_id": 0}


def test_the_page_loads_from_no_other_host_and_may_ask_none(client):
    answer = client.get("/")
    loaded = re.sub(r"<meta\s[^>]*>", "", answer.text)
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", loaded))
    assert answer.status_code == 200 and hosts <= {"127.0.0.1"}, hosts
    assert "<script>alert" not in answer.text
    policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
    allowed = {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
    assert policy["default-src"] == "'self'" and {x for part in policy.values() for x in part.split()} <= allowed


def test_a_frame_shows_what_each_model_decodes(client):
    (content,) = client.post(FRAME, json=values(drawing((20, 40, 59, 239)))).json()["data"]
    names, sections = zip(*re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", content), strict=True)
    assert names == ("one", "&lt;script&gt;alert(&#x27;two&#x27;)")
    one, two = map(figures, sections)
    assert one == two and pixels_of(one["image"]).shape == (224, 224, 3) and len(shares_of(one["text"])) == 3


def test_a_slider_moves_the_latent_of_its_rank_in_each_model(client):
    shown = []
    for move in (3, 0):
        (content,) = client.post(FRAME, json=values(moves=(move, 0, 0, 0, 0, 0))).json()["data"]
        shown += [pixels_of(tag).tolist() for tag in re.findall(r'<img alt="decoded"[^>]*>', content)]
    one, two, still, same = shown
    assert one != still == same != two != one


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # which pytest makes an error
def test_the_page_tells_what_is_wrong_with_a_picture(client, kind, capfd):
    value, message = UNREADABLE[kind]
    answer = client.post(FRAME, json=values(value))
    assert answer.status_code == 500 and answer.json()["error"].startswith(message)
    assert capfd.readouterr() == ("", "")


def test_a_request_that_is_too_large_is_not_read(client):
    for headers in ({}, {"Content-Length": "2"}):  # in chunks, whatever its headers say
        answer = client.post(FRAME, content=iter([bytes(2**20)] * 17), headers=headers)
        assert answer.status_code == 413 and answer.text == "a request has at most 16 MiB"
    answer = client.post(FRAME, json=values() | {"event_data": [0] * 10_000})
    assert answer.status_code == 413 and answer.text == "a request has at most 10,000 values"


DAMAGED_CALLS = [
    *({"data": data} for data in (5, ["", NONE, 0], [5, NONE, 0, *6 * [0]], ["", "11", 0, *6 * [0]])),
    *({"data": ["", NONE, draw, move, *5 * [0]]} for draw, move in ((0.5, 0), (101, 0), (0, "1"), (0, 4.5))),
    *({"data": ["", NONE, 0, *7 * [0]]}, {"data": [{"path": "/etc/passwd"}, NONE, 0, *6 * [0]]}),
    *({"fn_index": i} for i in (0, FN_INDEX + 1)),
]
NO_CALLS = [b"", b"[" * 5000, b'{"data": []}', *(json.dumps(values() | change).encode() for change in DAMAGED_CALLS)]


@pytest.mark.parametrize("content", NO_CALLS)
def test_what_is_no_call_of_the_page_is_refused(client, content):
    answer = client.post(FRAME, content=content)
    assert answer.status_code == 400 and "ask as the page does" in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}, 403),
        ({"Origin": "http://127.0.0.1:8000", "Access-Control-Request-Method": "POST"}, 403),
    ],
)
def test_other_hosts_and_pages_are_refused(client, headers, status):
    asked = client.get("/", headers=headers), client.post(FRAME, json=values(), headers=headers)
    for answer in (*asked, client.options(FRAME, headers=headers)):
        assert answer.status_code == status and "access-control-allow-origin" not in answer.headers
    assert client.post(FRAME, json=values(), headers={"Origin": HOME}).status_code == 200


REFUSALS = ("there is no such page", '{"detail":"Not Found"}')


def attempts(secret):
    """Paths that would read a file through gradio's routes of files, addresses and assets."""
    ways = ["../" * 12, "..%2f" * 12, "%2e%2e/" * 12, "..%5c" * 12, "....//" * 12, "/", "//", "%2f", "file://", ""]
    routes = ["/gradio_api/file=", "/gradio_api/proxy=", "/gradio_api/stream/a/b/c/", "/assets/", "/static/", "/"]
    return map("".join, itertools.product(routes, ways, (str(secret).lstrip("/"), "etc/passwd", "explore.py")))


def test_routes_that_the_page_does_not_use_are_shut(client):
    for route in ("upload", "component_server", "queue/join", "run/predict/../../upload"):
        assert client.post(f"/gradio_api/{route}", files={"files": b"x"}).status_code == 404
    for route in ("/monitoring", "/config", "/openapi.json", "/docs", "/gradio_api/info", "/gradio_api/vibe-code"):
        assert client.get(route).status_code == 404


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of the explorer of two of the authors' models of MNIST, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, temporary = (tmp_path_factory.mktemp(name) for name in ("models", "temporary"))
    models = [authors_file(folder / name) for name in ("model_best.pth.tar", "another.pth.tar")]
    command = [sys.executable, "-u", "explore.py", *map(str, models), "--port", str(port)]
    of_torch = str(temporary.with_name("torch"))  # which makes this folder as soon as a model is built
    environment = os.environ | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": of_torch}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == f"open http://127.0.0.1:{port} in a browser; Ctrl-C ends\n"
        listening = [x.laddr for x in psutil.Process(process.pid).net_connections() if x.status == "LISTEN"]
        assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", port)]
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "") and process.returncode == 130
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_no_file_of_the_machine_is_read(served, tmp_path):
    """With paths that a browser or a client library would mend before it asks."""
    with contextlib.closing(HTTPConnection(served.removeprefix("http://"))) as connection:
        for path in attempts(tmp_path):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404 and answer.read().decode().startswith(REFUSALS), path


@pytest.fixture
def tab(served):
    """The page in a browser. It fails the test at the end if a script failed or asked another host."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        errors, elsewhere = [], []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda r: None if re.match(rf"{served}|data:|blob:", r.url) else elsewhere.append(r.url))
        tab.goto(served)
        expect(tab.get_by_alt_text("decoded")).to_have_count(2, timeout=30_000)
        yield tab
        assert not errors and not elsewhere
        browser.close()


def changes(tab, act):
    """Do something that changes what the first model decodes."""
    shown = tab.get_by_alt_text("decoded").first
    before = shown.get_attribute("src")
    act()
    expect(shown).not_to_have_attribute("src", before, timeout=30_000)


def press(tab, *points):
    """Draw a line through points of the canvas, as shares of its sides, and keep the pen down."""
    tab.locator("canvas").scroll_into_view_if_needed()
    box = tab.locator("canvas").bounding_box()
    x, y = points[0]
    tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    tab.mouse.down()
    for x, y in points[1:]:
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=20)


@pytest.mark.slow
def test_the_page_in_a_browser(tab, tmp_path):
    slider = tab.get_by_role("slider").filter(visible=True)
    expect(slider).to_have_count(N_IN_VIEW)
    changes(tab, lambda: slider.first.press("End"))
    changes(tab, tab.get_by_role("button", name="reset all sliders").click)
    changes(tab, lambda: tab.get_by_label("7", exact=True).check())

    changes(tab, lambda: press(tab, (0.3, 0.2), (0.7, 0.2), (0.5, 0.8)))  # while the pen is down
    tab.mouse.up()
    tab.wait_for_timeout(1000)  # the last value of the drawing
    changes(tab, lambda: slider.first.press("End"))  # the drawing stays given
    changes(tab, tab.get_by_role("button", name="Clear").click)

    changes(tab, tab.get_by_role("button", name="example 2").click)
    press(tab, (0.3, 0.2), (0.7, 0.2))  # starts afresh on an empty canvas
    tab.mouse.up()
    corner = "document.querySelector('canvas').getContext('2d').getImageData(5, 5, 1, 1).data[3]"
    assert tab.evaluate(corner) == 0

    upload, note = tab.locator("input[type=file]"), tab.get_by_role("alert")
    changes(tab, lambda: upload.set_input_files(ROOT / "docs" / "mnist_conditional.png"))
    tab.wait_for_function(f"{corner} === 255")  # what changed may still be the drawing's last value
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "long.png").write_bytes(bytes(pictures.MAX_BYTES + 1))
    Image.new("1", (8001, 8000)).save(tmp_path / "wide.png")
    for name, message in (
        ("broken.png", "cannot be read as a picture: choose a PNG or JPEG file"),
        ("long.png", "has more than 16 MiB: choose a smaller picture"),
        ("wide.png", "has 8001 x 8000 pixels: choose one of at most 64 million"),
    ):
        upload.set_input_files(tmp_path / name)
        expect(note).to_have_text(f"{name} {message}")
