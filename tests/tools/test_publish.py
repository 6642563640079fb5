"""Published models: what the folder holds, that it loads, and what is uploaded."""

import json
import re
import sys
from importlib import import_module

import pytest
import torch

from common.checkpoints import BEST, load_config, load_model
from mnist import train as mnist_train
from tests.helpers.runs import config, metrics
from tests.helpers.scripts import run_script
from tools.publish import Config, main
from training import run_from_command_line

pytest.importorskip("safetensors")
HUB = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    mnist_train.main(config(folder, limit=60, epochs=2))
    return folder


def publish(capsys, *args):
    with pytest.raises(SystemExit) as exit_:
        run_from_command_line(main, Config, "", list(map(str, args)))
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_a_published_model_is_the_model(run, tmp_path):
    main(Config(run, tmp_path / "new"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    original = load_model(run).state_dict()
    for path in (tmp_path / "new", tmp_path / "new" / "model.safetensors"):
        state = load_model(path, "mnist").state_dict()
        assert state.keys() == original.keys() and all(state[name].equal(x) for name, x in original.items())
    options = load_config(tmp_path / "new")
    assert options["n_latents"] == 8 and str(run) not in (tmp_path / "new" / "config.json").read_text(), "no paths"
    text = (tmp_path / "new" / "README.md").read_text()
    assert (
        text.startswith("---\nlibrary_name: ")
        and "| model | mvae |\n| posterior | gaussian |\n| obj | the model's own |" in text
    )
    assert f"| valid | bound | {metrics(run)[1]['valid']['bound']:.3f} |" in text


@pytest.mark.parametrize("value", [torch.zeros(2), {1}, b"x", float("nan"), "\udcff"])
@pytest.mark.parametrize("name", ["config", "versions"])
def test_what_json_cannot_hold_is_refused(run, tmp_path, capsys, name, value):
    checkpoint = torch.load(run / BEST, weights_only=True)
    torch.save(checkpoint | {name: checkpoint[name] | {"odd": value}}, tmp_path / "odd.pth.tar")
    error = publish(capsys, tmp_path / "odd.pth.tar", tmp_path / "new")
    assert "odd.pth.tar holds options that JSON cannot hold (" in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "options"), [("fashionmnist", {}), ("cub", {"model": "caption", "K": 1})])
def test_convolutions_and_tied_weights_are_published(tmp_path, experiment, options):
    script = import_module(f"{experiment}.train")
    script.main(script.Config(save_dir=tmp_path / "run", demo=True, limit=20, epochs=1, n_latents=4, **options))
    main(Config(tmp_path / "run", tmp_path / "new"))
    original, published = (load_model(tmp_path / name).state_dict() for name in ("run", "new"))
    assert published.keys() == original.keys() and all(published[name].equal(x) for name, x in original.items())


def opened(folder, monkeypatch):
    """What the model card's Python makes, run in the folder above."""
    monkeypatch.chdir(folder.parent)
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    return names["model"].state_dict()


def test_the_cards_python_opens_the_model(run, tmp_path, monkeypatch):
    main(Config(run, tmp_path / "published"))
    card = (tmp_path / "published" / "README.md").read_text()
    assert "\nThe scripts of the library's folder mnist open it too.\n\n## Licence" in card
    original = load_model(run).state_dict()
    assert all(x.equal(original[name]) for name, x in opened(tmp_path / "published", monkeypatch).items())


def test_the_card_of_an_experiment_of_ones_own_imports_what_builds_the_model(run, tmp_path, monkeypatch):
    checkpoint = torch.load(run / BEST, weights_only=True) | {"experiment": "pairs"}
    torch.save(checkpoint, tmp_path / "own.pth.tar")
    main(Config(tmp_path / "own.pth.tar", tmp_path / "published"))
    assert "open it too" not in (tmp_path / "published" / "README.md").read_text()
    monkeypatch.setitem(sys.modules, "SCRIPT", import_module("mnist.model"))
    original = load_model(run).state_dict()
    assert all(x.equal(original[name]) for name, x in opened(tmp_path / "published", monkeypatch).items())


@pytest.mark.slow
def test_a_training_goes_on_from_it(run, tmp_path):
    main(Config(run / BEST, tmp_path / "new"))
    mnist_train.main(config(tmp_path / "more", limit=60, epochs=1, lr=1e-12, pre_trained=tmp_path / "new"))
    for name, x in load_model(run).state_dict().items():
        torch.testing.assert_close(load_model(tmp_path / "more").state_dict()[name], x, rtol=0, atol=1e-6)


def test_nothing_is_overwritten(run, capsys):
    assert publish(capsys, run, run) == f"error: {run} holds config.json already: choose another folder\n"


def test_a_file_is_no_folder(run, capsys):
    file = run / "config.json"
    assert publish(capsys, run, file) == f"error: {file} cannot be made (File exists): choose another folder\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "model.safetensors is damaged or not a file of safetensors"),
        ("config.json", "config.json is damaged, JSON is malformed"),
        (None, "config.json is missing: model.safetensors needs it, download the published folder again"),
    ],
)
def test_a_damaged_folder_is_refused(run, tmp_path, capsys, name, message):
    main(Config(run, tmp_path / "new"))
    if name is None:
        (tmp_path / "new" / "config.json").unlink()
    else:
        (tmp_path / "new" / name).write_bytes(b"broken" * 9)
    args = ["--demo", "--pre-trained", str(tmp_path / "new"), "--save-dir", str(tmp_path / "x")]
    with pytest.raises(SystemExit):
        run_script(mnist_train, args)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_folder_is_uploaded(run, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        HUB.HfApi, "create_repo", lambda self, repo, exist_ok: calls.append((repo, exist_ok)) or "there"
    )
    monkeypatch.setattr(HUB.HfApi, "upload_folder", lambda self, **given: calls.append(given))
    main(Config(run, tmp_path / "new", "someone/digits"))
    patterns = ["model.safetensors", "config.json", "README.md"]
    upload = {"repo_id": "someone/digits", "folder_path": tmp_path / "new", "allow_patterns": patterns}
    assert calls == [("someone/digits", True), upload]
    assert capsys.readouterr().out.endswith("\nthere\n")


def test_a_refusal_takes_one_line(run, tmp_path, monkeypatch, capsys):
    def refuse(self, repo, exist_ok):
        raise HUB.errors.HTTPError("no route to host")

    monkeypatch.setattr(HUB.HfApi, "create_repo", refuse)
    message = publish(capsys, run, tmp_path / "new", "--repo", "someone/digits")
    assert message.startswith("error: --repo someone/digits: no route to host: ") and message.count("\n") == 1
    assert f"hf upload someone/digits {tmp_path / 'new'}" in message
    monkeypatch.undo()
    message = publish(capsys, run, tmp_path / "other", "--repo", "not a name")
    assert message == "error: --repo not a name: give OWNER/NAME\n" and not (tmp_path / "other").exists()
    assert json.loads((tmp_path / "new" / "config.json").read_text())["experiment"] == "mnist"
