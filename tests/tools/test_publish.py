"""Published models: what the folder holds, that it loads, and what is uploaded."""

import re
import shutil
from importlib import import_module

from common.checkpoints import BEST, LAST, load_config, load_model
from common.errors import InputError
from tests.helpers.runs import metrics
from tools.publish import Config, main

import pytest
import torch

pytest.importorskip("safetensors")
HUB = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def run(trained):
    return trained("mnist")


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
    assert options["limit"] == 40 and str(run) not in (tmp_path / "new" / "config.json").read_text(), "no paths"
    text = (tmp_path / "new" / "README.md").read_text()
    assert (
        text.startswith("---\nlibrary_name: ")
        and "| model | mvae |\n| posterior | gaussian |\n| obj | the model's own |" in text
    )
    assert f"| valid | bound | {metrics(run)[-1]['valid']['bound']:.3f} |" in text


def test_the_best_model_is_published_not_the_last(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    last = torch.load(folder / LAST, weights_only=True)
    torch.save(last | {"state_dict": {name: x + 1 for name, x in last["state_dict"].items()}}, folder / LAST)
    main(Config(folder, tmp_path / "new"))
    published, best = load_model(tmp_path / "new").state_dict(), load_model(run).state_dict()
    assert all(published[name].equal(x) for name, x in best.items())


@pytest.mark.parametrize("value", [torch.zeros(2), float("nan")])
def test_what_json_cannot_hold_is_refused(run, tmp_path, value):
    checkpoint = torch.load(run / BEST, weights_only=True)
    torch.save(checkpoint | {"config": checkpoint["config"] | {"odd": value}}, tmp_path / "odd.pth.tar")
    with pytest.raises(InputError, match=r"odd.pth.tar holds options that JSON cannot hold \("):
        main(Config(tmp_path / "odd.pth.tar", tmp_path / "new"))
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "model.safetensors is damaged or not a file of safetensors"),
        ("config.json", "config.json is damaged, JSON is malformed"),
        (None, "config.json is missing: model.safetensors needs it, download the published folder again"),
    ],
)
def test_a_damaged_folder_is_refused(run, tmp_path, name, message):
    main(Config(run, tmp_path / "new"))
    if name is None:
        (tmp_path / "new" / "config.json").unlink()
    else:
        (tmp_path / "new" / name).write_bytes(b"broken" * 9)
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "new")


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
