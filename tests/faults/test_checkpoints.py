"""Checkpoints that are damaged or made to do harm: resuming, starting from them, loading them."""

import io
import json
import random
import shutil
import zipfile
from functools import partial

import training as runs
from common.checkpoints import BEST, LAST, load, load_config, load_model
from mnist import sample
from mnist import train as mnist_train
from tests.faults.attack import attack, scaled
from tests.faults.mutated import mutations
from tests.helpers.runs import config

import pytest
import torch

LOOP = []
LOOP.append(LOOP)


def aliases(depth):
    value = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


def removed(old):
    raise KeyError


def reshaped(x):
    return torch.zeros(*x.shape, 2) if isinstance(x, torch.Tensor) else [x]


def retyped(x):
    return x.long() if isinstance(x, torch.Tensor) and x.is_floating_point() else [x]


PLAIN = [None, "x" * 10_000, 10**30, -1, float("nan"), [1, "x"], {"a": [1]}]  # what may stand in place of any value
TENSORS = [torch.full((3,), torch.nan), torch.zeros(1).expand(10**12), torch.zeros(3, device="meta")]
TENSORS += [torch.zeros(3).to_sparse(), torch.zeros(3, dtype=torch.complex64)]
ODD = [*PLAIN, *TENSORS, {1: 2}, aliases(60), LOOP, removed, reshaped, retyped]


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


def damages(content, n, seed, odd=ODD):
    """n changed copies of nested containers, each with a description."""
    rng, kinds = random.Random(seed), {}
    for path in places(content):
        if path:  # a few places hold most of the values: draw the place's kind first
            kinds.setdefault(path[:2], []).append(path)
    for _ in range(n):
        path, i = rng.choice(kinds[rng.choice(list(kinds))]), rng.randrange(len(odd))
        how = odd[i] if callable(odd[i]) else lambda old, i=i: odd[i]
        yield f"{'.'.join(map(str, path))}, odd value {i}", changed(content, path, how)


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


def test_hostile_checkpoints(run, tmp_path):
    """tests/common/test_checkpoints.py has those that hold code, and those that unpack to gigabytes."""
    good, deep = load(run / BEST), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes_of(good))) as old, zipfile.ZipFile(deep, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, data[:-1] + b"(" * 10_000_000 if entry.filename.endswith(".pkl") else data)
    contents = [
        ("a deep pickle", deep.getvalue()),
        ("2,000,000 latents", bytes_of(good | {"config": good["config"] | {"n_latents": 2_000_000}})),
        ("an experiment that is a path", bytes_of(good | {"experiment": "os.path"})),
        ("nested aliases", bytes_of(good | {"config": good["config"] | {"model": aliases(60)}})),
    ]
    attack("hostile checkpoints", in_copies(run, tmp_path, BEST, contents, loaded), refused=True)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_resuming_beside_other_json(name, run, tmp_path):
    content = json.loads((run / name).read_text())
    damaged = [
        (told, json.dumps(x).encode() + b"\n")
        for told, x in damages(content, scaled(15), seed=4, odd=[*PLAIN, removed])
    ]
    damaged += [(repr(x[:20]), x) for x in (b"", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"a": 1e999}\n')]
    attack(f"--resume beside a damaged {name}", in_copies(run, tmp_path, name, damaged, resumed))
