"""The explorer: what it reads, what it shows, and that it works in a browser."""

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial
from http.client import HTTPConnection
from importlib import import_module
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngImageFile
from playwright.sync_api import expect, sync_playwright
from starlette.testclient import TestClient

import explore
from common.checkpoints import EXPERIMENTS
from common.errors import InputError
from common.training import run_from_command_line
from exploration import pictures, server
from explore import NONE, Attributes, Choice, Explorer, Picture, Words
from tests.helpers.authors import authors_file
from tests.helpers.scripts import ROOT

OPTIONS = {
    "n_latents": 6, "model": "mvae", "posterior": "gaussian", "fusion": "poe", "teacher_forcing": False,
    "learn_prior": True, "prior_and_posterior": "laplace", "num_hidden_layers": 1, "llik_scaling": 1.0, "obj": "elbo",
    "n_modalities": 3, "n_private": None, "n_clusters": None, "networks": "conv",
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


@pytest.mark.parametrize("options", [{"model": "dmvae"}, {"model": "cmvae", "n_clusters": 3}])
def test_models_with_private_latents_are_explored(options):
    options = OPTIONS | {"n_private": (1, 2), "learn_prior": False, "prior_and_posterior": "normal"} | options
    model = import_module(EXPERIMENTS["mnist_svhn"]).build(SimpleNamespace(**options)).eval()
    explorer = Explorer(model, explore.VIEWS["mnist_svhn"])
    still = [0.0] * len(explorer.dimensions)
    *shown, _ = explorer.frame([uri(Image.new("L", (28, 28), 255)), None], 0, still)
    *moved, _ = explorer.frame([None, None], 0, [3.0] * len(still))
    assert [pixels_of(tag).shape[2] for tag in (*shown, *moved)] == 4 * [3]


EXAMPLES = {
    explore.VIEWS["multimnist"]["text"]: "42",
    explore.VIEWS["translation"]["english"]: "forty-two",
    explore.VIEWS["translation"]["french"]: "quarante-deux",
}


def uri(image, **options):
    """A picture as the page sends it."""
    content = BytesIO()
    image.save(content, "PNG", **options)
    return pictures.START + base64.b64encode(content.getvalue()).decode()


def pixels_of(tag):
    """The picture that a component's HTML shows, (H, W, 3)."""
    encoded = re.fullmatch(rf'<img alt="decoded" src="{pictures.START}([^"]*)">', tag)[1]
    return np.array(Image.open(BytesIO(base64.b64decode(encoded))))


def nothing(view):
    return {Choice: NONE, Attributes: [NONE], Words: "", Picture: ""}[type(view)]


def something(view):
    if isinstance(view, Picture):
        return uri(Image.new("RGB", (90, 70), (255, 0, 0)))
    return {Choice: lambda: view.names[-1], Attributes: lambda: [view.names[0]], Words: lambda: EXAMPLES[view]}[
        type(view)
    ]()


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
            a, b, c, d = map(pixels_of, (a, b, c, d))
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


def drawing(box):
    layer = Image.new("RGBA", (pictures.SIDE, pictures.SIDE))
    ImageDraw.Draw(layer).rectangle(box, fill=(0, 0, 0, 255))
    return uri(layer)


def test_a_drawn_digit_lies_as_those_of_mnist_do():
    x = Picture(1, 28).read(drawing((20, 40, 59, 239)))[0, 0]  # 40 wide, 200 high, at the left
    rows, columns = (torch.nonzero(x.amax(dim)).flatten() for dim in (1, 0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 12, 15)
    assert x[4:24, 12:16].min() == 1 and Picture(1, 28).read(drawing((-9, -9, -8, -8))) is None


def test_a_drawing_of_another_size_lies_as_it_was_drawn():
    x = Picture(1, 50).read(drawing((0, 0, 139, 279)))[0, 0]
    assert x[:, :24].min() == 1 and x[:, 26:].max() == 0


def test_an_uploaded_picture_is_taken_as_it_is():
    x = Picture(1, 28).read(uri(Image.new("RGBA", (56, 28), (255, 255, 255, 255))))
    assert torch.equal(x, torch.ones(1, 1, 28, 28))


def damaged(content):
    return pictures.START + base64.b64encode(content).decode()


PNG = base64.b64decode(uri(Image.new("L", (8, 8)))[len(pictures.START) :])
DAMAGED = "the picture is not a readable image"
UNREADABLE = {
    "text": ("hello", "a picture is given as data:image/png;base64,..., not as 'hello'"),
    "base64": (pictures.START + "%", "the picture is not base64: choose another one"),
    "nothing": (pictures.START, DAMAGED),
    "cut off": (damaged(PNG[:45]), DAMAGED),
    "a flipped bit": (damaged(PNG[:45] + bytes([PNG[45] ^ 8]) + PNG[46:]), DAMAGED),
    "another format": (damaged(b"%!PS-Adobe-3.0 EPSF-3.0"), DAMAGED),
    "64.01 megapixels": (uri(Image.new("1", (8001, 8000))), "the picture has 8,001 x 8,000 pixels"),
    "2^32 pixels": (damaged(PNG[:16] + b"\0\1\0\0" * 2 + PNG[24:]), DAMAGED),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # which pytest makes an error
def test_a_picture_that_cannot_be_read_takes_one_line(kind):
    value, message = UNREADABLE[kind]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Picture(1, 28).read(value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # which pytest makes an error
def test_no_pixel_of_a_picture_that_is_too_large_is_decoded(monkeypatch):
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    value, message = UNREADABLE["64.01 megapixels"]
    with pytest.raises(InputError, match=re.escape(message)):
        Picture(1, 28).read(value)


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


HOME = "http://127.0.0.1:7860"
FRAME = "/gradio_api/run/predict"


@pytest.fixture(scope="module")
def client():
    """A browser's requests to the explorer of a small model of MNIST."""
    explorer = Explorer(model_of("mnist"), explore.VIEWS["mnist"])

    async def make():  # outside a loop gradio would make some and leave them open
        return server.application(partial(explore.page, explorer, "a <script>alert('model')</script>"))

    with TestClient(asyncio.run(make()), base_url=HOME) as client:
        yield client


def values(picture="", moves=(0,) * 6):
    """What the page sends when it loads, or after a change."""
    return {"data": [picture, NONE, 0, *moves], "fn_index": 8, "session_hash": "a", "trigger_id": 0}


def test_the_page_names_no_other_host_and_may_ask_none(client):
    answer = client.get("/")
    hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", answer.text))
    assert answer.status_code == 200 and hosts <= {"127.0.0.1"}, hosts
    assert "<script>alert" not in answer.text
    policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
    allowed = {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
    assert policy["default-src"] == "'self'" and {x for part in policy.values() for x in part.split()} <= allowed


def test_fonts_and_styles_are_local(client):
    style = client.get("/theme.css").text
    addresses = re.findall(r"url\('?([^')]+)'?\)", style)
    assert addresses and all(client.get(f"/{x}").status_code == 200 for x in addresses if not x.startswith("data:"))


def test_a_frame_is_drawn(client):
    picture, label, took = client.post(FRAME, json=values(drawing((20, 40, 59, 239)))).json()["data"]
    assert pixels_of(picture).shape == (224, 224, 3) and label["label"] in explore.DIGITS and took.endswith(" ms")


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # which pytest makes an error
def test_the_page_tells_what_is_wrong_with_a_picture(client, kind, capfd):
    value, message = UNREADABLE[kind]
    answer = client.post(FRAME, json=values(value))
    assert answer.status_code == 500 and answer.json()["error"].startswith(message)
    assert capfd.readouterr() == ("", "")


def test_a_request_that_is_too_large_is_not_read(client):
    answer = client.post(FRAME, json=values(pictures.START + "A" * pictures.MAX_BYTES))
    assert answer.status_code == 413 and answer.text == "a request has at most 16 MiB"
    assert client.post(FRAME, content=iter([b"{}"])).status_code == 413  # its length is unknown


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "[::1]", ""])
def test_another_host_is_refused(client, host):
    for answer in (client.get("/", headers={"Host": host}), client.post(FRAME, json=values(), headers={"Host": host})):
        assert answer.status_code == 400 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8000", "https://127.0.0.1:7860", "null"])
def test_pages_of_other_origins_are_refused(client, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        client.post(FRAME, json=values(), headers={"Origin": origin}),
        client.get("/", headers={"Origin": origin}),
        client.options(FRAME, headers=asked),
    ):
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    assert client.post(FRAME, json=values(), headers={"Origin": HOME}).status_code == 200


SECRET = "what no page may read"
REFUSALS = ("there is no such page", '{"detail":"Not Found"}')


def attempts(secret):
    """Paths that would read a file through gradio's routes of files, addresses and assets."""
    ways = ["../" * 12, "..%2f" * 12, "%2e%2e/" * 12, "..%5c" * 12, "....//" * 12, "/", "//", "%2f", "file://", ""]
    routes = ["/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/gradio_api/stream/a/b/c/", "/file="]
    routes += [
        "/gradio_api/custom_component/0/client/component/",
        "/assets/",
        "/static/",
        "/svelte/",
        "/theme.css/",
        "/",
    ]
    return map("".join, itertools.product(routes, ways, (str(secret).lstrip("/"), "etc/passwd", "explore.py")))


def test_routes_that_the_page_does_not_use_are_shut(client, tmp_path):
    for path in attempts(tmp_path):
        answer = client.get(HOME + path)
        assert answer.status_code == 404 and answer.text in REFUSALS, path
    for route in (
        "/gradio_api/upload",
        "/gradio_api/component_server",
        "/gradio_api/queue/join",
        FRAME + "/../../upload",
    ):
        assert client.post(route, files={"files": b"x"}).status_code == 404
    for route in ("/monitoring", "/config", "/openapi.json", "/docs", "/gradio_api/info", "/gradio_api/vibe-code"):
        assert client.get(route).status_code == 404


def test_a_path_as_a_value_reads_no_file(client, tmp_path):
    secret = tmp_path / "model_best.pth.tar"
    secret.write_text(SECRET)
    for address in ({"path": str(secret)}, {"path": "x", "url": f"file://{secret}"}, {"path": f"file://{secret}"}):
        answer = client.post(FRAME, json=values(address | {"meta": {"_type": "gradio.FileData"}}))
        assert answer.status_code == 500 and SECRET not in answer.text


@pytest.mark.slow
def test_frames_leave_nothing_behind(client, tmp_path, monkeypatch):
    """Hundreds of frames, in this process and by requests, with drawings and without."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    explorer = Explorer(model_of("mnist"), explore.VIEWS["mnist"])
    given = drawing((20, 40, 59, 239)), ""

    def frames(n):
        for i in range(n):
            moves = [i % 80 / 10 - 4] + [0] * 5
            explorer.frame([given[i % 2], NONE], i % 3, moves)
            assert client.post(FRAME, json=values(given[i % 2], moves)).status_code == 200

    process = psutil.Process()
    frames(200)
    memory, descriptors = process.memory_info().rss, process.num_fds()
    frames(400)
    assert process.memory_info().rss < 1.01 * memory and process.num_fds() <= descriptors
    assert not list(tmp_path.iterdir())


def start(model, port, tmp_path, *options):
    """The explorer as a user starts it, with an own folder for temporary files."""
    command = [sys.executable, "-u", "explore.py", str(model), "--port", str(port), *options]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


@pytest.mark.parametrize("port", [80000, 0, -1, "in use"])
def test_a_port_that_cannot_be_had_takes_one_line(tmp_path, capsys, port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1] if port == "in use" else port
        with pytest.raises(SystemExit, match="2"):
            run_from_command_line(explore.main, explore.Config, None, [str(tmp_path), "--port", str(number)])
    in_use = f"error: --port {number}: Address already in use: choose another port\n"
    said = in_use if port == "in use" else f"error: --port must be 1 to 65535, not {port}\n"
    assert capsys.readouterr().err == said


@pytest.fixture
def served(tmp_path):
    """The address of the explorer of the original authors' model of MNIST, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model, temporary = authors_file(tmp_path / "model_best.pth.tar"), tmp_path / "temporary"
    temporary.mkdir()
    with start(model, port, temporary) as process:
        assert process.stdout.readline() == f"open http://127.0.0.1:{port} in a browser; Ctrl-C ends\n"
        listening = [
            (x.laddr.ip, x.laddr.port) for x in psutil.Process(process.pid).net_connections() if x.status == "LISTEN"
        ]
        assert listening == [("127.0.0.1", port)]
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "") and process.returncode == 130
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_no_file_of_the_machine_is_read(served, tmp_path):
    """With paths that a browser or a client library would mend before it asks."""
    with contextlib.closing(HTTPConnection(served.removeprefix("http://"))) as connection:
        for path in attempts(tmp_path / "model_best.pth.tar"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404 and answer.read().decode() in REFUSALS, path


@pytest.mark.slow
def test_the_page_in_a_browser(served, tmp_path):
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
        shown = tab.get_by_alt_text("decoded")
        expect(shown).to_be_visible(timeout=30_000)

        def changes(act):
            before = shown.get_attribute("src")
            act()
            expect(shown).not_to_have_attribute("src", before, timeout=30_000)

        slider = tab.get_by_role("slider").nth(1)
        changes(lambda: slider.press("End"))
        changes(tab.get_by_role("button", name="reset all latents").click)

        clear = tab.get_by_role("button", name="Clear")

        def draw():
            box = tab.locator("canvas").bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            tab.mouse.move(x, y - 80)
            tab.mouse.down()
            tab.mouse.move(x, y + 80, steps=8)
            tab.mouse.up()

        changes(draw)
        changes(lambda: slider.press("End"))  # the drawing stays given
        before = shown.get_attribute("src")
        changes(clear.click)
        assert shown.get_attribute("src") != before
        upload, note = tab.locator("input[type=file]"), tab.get_by_role("alert")
        changes(lambda: upload.set_input_files(ROOT / "docs" / "mnist_conditional.png"))
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
        assert not errors and not elsewhere
        browser.close()
