"""Checkpoints that are damaged or made to do harm: resuming, starting from them, loading them."""

import io
import json
import os
import random
import shutil
import zipfile
from functools import partial

import pytest
import torch

import training as runs
from common.checkpoints import BEST, LAST, load, load_config, load_model
from mnist import sample
from mnist import train as mnist_train
from tests.faults.attack import attack, scaled
from tests.faults.mutated import mutations
from tests.helpers.runs import config

LOOP = []
LOOP.append(LOOP)


class Code:
    def __reduce__(self):
        return os.system, ("touch harm",)


def aliases(depth):
    value = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


# what may stand in place of any value
ODD = {
    "nothing": None,
    "a long text": "x" * 10_000,
    "a huge number": 10**30,
    "a negative number": -1,
    "nan": float("nan"),
    "a list": [1, "x"],
    "a dict by number": {1: 2},
    "nested aliases": aliases(60),
    "a list that holds itself": LOOP,
    "a tensor of nan": torch.full((3,), torch.nan),
    "a repeated tensor": torch.zeros(1).expand(10**12),
    "a sparse tensor": torch.zeros(3).to_sparse(),
    "a tensor without memory": torch.zeros(3, device="meta"),
    "a complex tensor": torch.zeros(3, dtype=torch.complex64),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, trained for an epoch."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, epochs=1)
    return folder


def places(value, path=()):
    """The paths to all values in nested containers."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield from places(held, (*path, key))


def changed(value, path, how):
    """A copy of nested containers in which `how(old)` stands at a path; `how` may raise KeyError to remove it."""
    if not path:
        return how(value)
    copy = value.copy()
    try:
        copy[path[0]] = changed(copy[path[0]], path[1:], how)
    except KeyError:
        del copy[path[0]]
    return copy


def removed(old):
    raise KeyError


def reshaped(x):
    return torch.zeros(*x.shape, 2) if isinstance(x, torch.Tensor) else [x]


def retyped(x):
    return x.long() if isinstance(x, torch.Tensor) and x.is_floating_point() else [x]


def damages(checkpoint, n, seed):
    """n changed copies of a checkpoint, each with a description."""
    rng, hows = random.Random(seed), {"removed": removed, "reshaped": reshaped, "retyped": retyped}
    hows |= {name: lambda old, value=value: value for name, value in ODD.items()}
    cases = [(path, name) for path in places(checkpoint) if path for name in hows]
    # a few places hold most of the values: draw the place's kind first
    kinds = {}
    for path, name in cases:
        kinds.setdefault(path[:2], []).append((path, name))
    for _ in range(n):
        path, name = rng.choice(kinds[rng.choice(list(kinds))])
        yield f"{'.'.join(map(str, path))} {name}", changed(checkpoint, path, hows[name])


def placed(run, folder, files):
    """A copy of a run's folder with other files: {name: bytes or content for torch.save}."""
    folder.mkdir()
    for name in (LAST, BEST, "config.json", "metrics.jsonl"):
        content = files.get(name, (run / name).read_bytes())
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            torch.save(content, folder / name)
    return folder


def train(save_dir, **options):
    """Train without pictures, which would take most of the time."""
    runs.run(config(save_dir, limit=100, **options), mnist_train.experiment()._replace(draw=None))


def resumed(folder):
    train(folder, epochs=2, resume=True)


def started(folder):
    train(folder / "new", epochs=1, pre_trained=folder)


def sampled(folder):
    sample.main(sample.Config(folder, n_samples=1, demo=True, limit=10))


def loaded(folder):
    load_config(folder)
    load_model(folder)


def in_copies(run, tmp_path, name, contents, use):
    """Calls that use copies of the run with other contents of a file."""
    for i, (told, content) in enumerate(contents):
        yield told, partial(lambda i, content: use(placed(run, tmp_path / str(i), {name: content})), i, content)
        shutil.rmtree(tmp_path / str(i), ignore_errors=True)  # a run takes 40 MB


def test_resuming_damaged_checkpoints(run, tmp_path):
    contents = damages(load(run / LAST), scaled(25), seed=1)
    attack("--resume of damaged checkpoints", in_copies(run, tmp_path, LAST, contents, resumed))


@pytest.mark.parametrize("use", [started, sampled, loaded])
def test_using_damaged_models(use, run, tmp_path):
    contents = damages(load(run / BEST), scaled(8), seed=2)
    attack(f"damaged models, {use.__name__}", in_copies(run, tmp_path, BEST, contents, use))


def bytes_of(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_changed_bytes(zipped, run, tmp_path):
    whole = bytes_of(load(run / BEST), _use_new_zipfile_serialization=zipped)
    damaged = ((f"file {i}", content) for i, content in enumerate(mutations(whole, 3, scaled(8))))
    calls = in_copies(run, tmp_path, BEST, damaged, loaded)
    attack(f"checkpoints with changed bytes, {'zip' if zipped else 'older'} format", calls)


def with_entry(content, ending, change, compression=zipfile.ZIP_STORED):
    """The bytes of a checkpoint in whose zip the entry with this ending is changed."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, "w", compression) as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith(ending) else data)
    return result.getvalue()


def test_hostile_checkpoints(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = load(run / BEST)
    whole = bytes_of(good)
    bomb = with_entry(whole, "data/0", lambda data: bytes(2**30 + 2**28), zipfile.ZIP_DEFLATED)
    pickle = with_entry(whole, "data.pkl", lambda data: data[:-1] + b"(" * 10_000_000)
    contents = [
        ("code", bytes_of(Code())),
        ("code in the options", bytes_of(good | {"config": {"n_latents": Code()}})),
        ("code, older format", bytes_of(Code(), _use_new_zipfile_serialization=False)),
        ("a record that unpacks to 1.25 GiB", bomb),
        ("a deep pickle", pickle),
        ("2,000,000 latents", bytes_of(good | {"config": good["config"] | {"n_latents": 2_000_000}})),
        ("an experiment that is a path", bytes_of(good | {"experiment": "os.path"})),
        ("nested aliases", bytes_of(good | {"config": good["config"] | {"model": aliases(60)}})),
    ]
    attack("hostile checkpoints", in_copies(run, tmp_path, BEST, contents, loaded), refused=True)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("kind", ["a pipe", "/dev/zero", "a folder", "a link to nothing"])
def test_no_file_in_place_of_one(kind, run, tmp_path):
    make = {"a pipe": os.mkfifo, "/dev/zero": partial(os.symlink, "/dev/zero"), "a folder": os.mkdir}
    for name in (LAST, "config.json", "metrics.jsonl"):
        folder = placed(run, tmp_path / name, {})
        (folder / name).unlink()
        make.get(kind, partial(os.symlink, "nowhere"))(folder / name)
        attack("pipes, devices and folders in a save-dir", [(kind, partial(resumed, folder))], refused=True)


def odd_json(value, n, seed):
    """Changed copies of a JSON value, as bytes, and bytes that are none."""
    hows = {name: lambda old, odd=odd: odd for name, odd in ODD.items() if name.endswith(("ing", "text", "number"))}
    hows |= {"removed": removed, "nan": lambda old: float("nan"), "a list": lambda old: [1, "x"]}
    rng, paths = random.Random(seed), [path for path in places(value) if path]
    for _ in range(n):
        path, name = rng.choice(paths), rng.choice(list(hows))
        yield f"{'.'.join(map(str, path))} {name}", json.dumps(changed(value, path, hows[name])).encode() + b"\n"
    for content in (b"", b"[]\n", b"{\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"a": 1e999}\n'):
        yield repr(content[:20]), content


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_resuming_beside_other_json(name, run, tmp_path):
    value = json.loads((run / name).read_text())
    calls = in_copies(run, tmp_path, name, odd_json(value, scaled(15), seed=4), resumed)
    attack(f"--resume beside a damaged {name}", calls)


def test_a_huge_file_is_not_read(run, tmp_path):
    calls = []
    for name in (LAST, BEST, "config.json", "metrics.jsonl"):
        folder = placed(run, tmp_path / name, {})
        with open(folder / name, "r+b") as file:
            file.truncate(50 * 2**30)  # sparse: it takes no space
        calls.append((name, partial(started if name == BEST else resumed, folder)))
    attack("files of 50 GiB", calls, refused=True)
