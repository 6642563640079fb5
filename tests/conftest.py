import importlib
import json
import os
import shutil
import signal
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# small models gain nothing from more threads, lose much where cores are busy, and resume bit for bit only with the
# same number; scripts that tests start inherit it
os.environ["OMP_NUM_THREADS"] = os.environ.get("TEST_THREADS", "1")

import celeba.data
from common.execution import devices
from reports import plots, training_curves
from tests.reference import fill

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from PIL import Image

pytest.register_assert_rewrite("tests.helpers")

from tests.helpers.celeba_files import write_celeba  # noqa: E402 (after its asserts are to be rewritten)
from tests.helpers.scripts import run_script  # noqa: E402

settings.register_profile("short", max_examples=10, deadline=None, derandomize=False)
settings.register_profile("long", max_examples=200, deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs that a shell runs in the background ignore it


def pytest_addoption(parser):
    parser.addoption("--cuda", action="store_true", help="run all scripts on the GPU, as if each had --cuda")


@pytest.fixture(scope="session", autouse=True)
def _device(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--cuda"):
            select = devices.select
            patch.setattr(devices, "select", lambda cuda: select(cuda=True))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _drawn_once():
    """A hundred faces are drawn at a time, and most tests take the first few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(celeba.data, "drawn", cache(celeba.data.drawn))
        yield


@pytest.fixture(autouse=True)
def _as_torch_starts():
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # scripts that ran in this process have set it


DRAWN = {(plots, "save"): plots.save, (training_curves, "loss_curves"): training_curves.loss_curves}


@pytest.fixture
def finely(monkeypatch):
    """Pictures as users get them."""
    for (module, name), function in DRAWN.items():
        monkeypatch.setattr(module, name, function)


@pytest.fixture(scope="module", autouse=True)
def _sketches():
    """Empty pictures: those that users get take half of a short training, and few tests look at them."""

    def save(figure, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = (figure.get_size_inches() * 80).round().astype(int).tolist()
        Image.new("RGB", (width, height), "white").save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", save)
        patch.setattr(training_curves, "loss_curves", lambda path, metrics: path.write_bytes(b""))
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """folder -> a run of its demo, trained once for all processes of the tests. Copy it before you write into it."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "trained"
    root.mkdir(exist_ok=True)

    def run_of(folder):
        with FileLock(root / f"{folder}.lock"):
            if not (root / folder).exists():
                script = importlib.import_module(f"{folder}.train")
                part, options = (
                    root / f"{folder}.part",
                    ["--demo", "--epochs", "1", "--limit", "40", "--batch-size", "20"],
                )
                shutil.rmtree(part, ignore_errors=True)
                run_script(script, [*options, "--save-dir", str(part)])
                part.rename(root / folder)
        return root / folder

    return run_of


@pytest.fixture
def server():
    """A local HTTP server of the files in `content`, which understands Range and can break off after `cut` bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append((self.path, self.headers.get("Range")))
            content = state.content.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Content-Type", state.types.get(self.path, "application/octet-stream"))
            self.end_headers()
            self.wfile.write(content[start : state.cut])

        def log_message(self, *args):
            pass

    class State:
        content, requests, types, cut = {}, [], {}, None

    state = State()
    state.content, state.requests, state.types = {}, [], {}
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(scope="session")
def mmvae(tmp_path_factory):
    """A run's folder as the MMVAE authors' code leaves it."""
    folder = tmp_path_factory.mktemp("mmvae")
    layouts = json.loads((Path(__file__).parent / "reference" / "layouts.json").read_text())
    state_dict = fill.fill({name: torch.empty(shape) for name, shape in layouts["mnist_svhn"].items()})
    torch.save(state_dict, folder / "model.rar", _use_new_zipfile_serialization=False)
    args = {"model": "mnist_svhn", "latent_dim": 20, "num_hidden_layers": 1, "learn_prior": True, "llik_scaling": 0.0}
    (folder / "args.json").write_text(json.dumps(args))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A data-dir of CelebA's layout with what vision's setup.py makes; the face of the second image was not found."""
    folder = write_celeba(tmp_path_factory.mktemp("photographs"))
    for name, mode in (("grayscale", "L"), ("edge", "L"), ("mask", "L")):
        (folder / name).mkdir()
        for path in sorted((folder / "img_align_celeba").iterdir()):
            blank = name == "mask" and path.name == "000002.jpg"
            picture = Image.new("L", (45, 55), 255) if blank else Image.open(path).convert(mode)
            picture.save(folder / name / path.name, quality=95)
    return folder
