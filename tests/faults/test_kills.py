"""Processes that are killed, and disks that are full, while they train, save, cache and generate: nothing is lost."""

import errno
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from importlib import import_module

import multimnist.data
from common.io import locked
from mnist_svhn import make_idx
from multimnist import generate
from tests.faults.attack import attack, forked, record, scaled
from tests.helpers.celeba_files import write_celeba
from tests.helpers.mnist_files import IMAGES, LABELS, write_mnist
from tests.helpers.runs import assert_same_run, equal
from tests.helpers.scripts import call
from vision import setup

import numpy as np
import pytest
import torch

OPTIONS = ("--demo", "--epochs", 3, "--annealing-epochs", 1, "--batch-size", 20, "--n-latents", 6, "--limit", 40)
MORE = {
    "mnist_svhn": ("--K", 2),
    "cub": ("--K", 2, "--model", "features"),
    "vhe": ("--limit", 8),
    "translation": ("--limit", 60),
}
FOLDERS = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision", "mnist_svhn", "polymnist")
FOLDERS += ("cub", "vhe", "translation", "mfeat")
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def training(folder, save_dir, *options):
    """A training in a folder of the repository, as a call without arguments."""
    return partial(
        call, import_module(f"{folder}.train"), *OPTIONS, *MORE.get(folder, ()), *options, "--save-dir", save_dir
    )


def at_writes(act):
    """Call `act(n)` before the nth change of a file: opening to write, renaming, removing, ..."""
    n = 0

    def hook(event, args):
        nonlocal n
        opened = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened and str(args[0]) != os.devnull) or event in WRITES:
            n += 1
            act(n)

    sys.addaudithook(hook)


def finished(work, folder):
    """Make a call in a child process to its end; returns the seconds that it took and the changes that it made."""

    def counted():
        at_writes(lambda n: changes.append(n))
        work()
        (folder / "n_changes").write_text(str(len(changes)))

    changes, start = [], time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(forked(counted), 0)[1]) == 0
    n_changes = int((folder / "n_changes").read_text())
    (folder / "n_changes").unlink()
    return time.monotonic() - start, n_changes


def killed(work, rng, seconds, n_changes):
    """Kill a call at a random time, or before a random change of a file; returns whether it came to that."""
    if rng.random() < 0.5:
        last = rng.randint(1, n_changes)

        def until():
            at_writes(lambda n: n == last and os.kill(os.getpid(), signal.SIGKILL))
            work()

        return os.WIFSIGNALED(os.waitpid(forked(until), 0)[1])
    child = forked(work)
    time.sleep(rng.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def assert_same(a, b):
    """Two save-dirs hold the same run, to the last bit, and the same files."""
    assert_same_run(a, b)
    files = [sorted(p.relative_to(x).as_posix() for p in x.rglob("*")) for x in (a, b)]
    assert files[0] == files[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_training_that_is_killed_goes_on_as_if_it_never_was(folder, tmp_path):
    rng, kills = random.Random(FOLDERS.index(folder)), 0
    seconds, n_changes = finished(training(folder, tmp_path / "whole"), tmp_path)
    resumed = training(folder, tmp_path / "killed", "--resume")
    while kills < scaled(1):
        if killed(resumed, rng, seconds, n_changes):
            kills += 1
        else:  # it was at its end before the kill came
            assert_same(tmp_path / "whole", tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed")
    finished(resumed, tmp_path)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    record("kill -9 in training", {"fine": kills})


@pytest.mark.parametrize("folder", ["mnist", "vhe"])
def test_a_full_disk_costs_no_training(folder, tmp_path):
    """The disk is full from some change of a file on, then it is not."""
    _, n_changes = finished(training(folder, tmp_path / "whole"), tmp_path)
    resumed = training(folder, tmp_path / "full", "--resume")
    rng = random.Random(0)
    for first in sorted(rng.sample(range(1, n_changes + 1), min(n_changes, scaled(2)))):
        attack("a full disk in training", [(f"from change {first} on", partial(on_a_full_disk, resumed, first))])
    finished(resumed, tmp_path)
    assert_same(tmp_path / "whole", tmp_path / "full")


def on_a_full_disk(work, first):
    def refuse(n):
        if n >= first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at_writes(refuse)
    work()


def generating(kind, folder):
    """A call that makes files in a folder from others, which are written at the first call beside the folder."""
    sources = folder.parent / "sources"
    if kind in ("vision", "celeba") and not sources.exists():
        write_celeba(sources)
    if kind == "multimnist":
        dots = np.zeros_like(IMAGES)
        dots[:, 10:18, 10:18] = 200  # random images would overlap in each place
        write_mnist(sources, images=dots)
        folders = ("--mnist-dir", sources, "--data-dir", folder / "made")
        return partial(call, generate, *folders)
    if kind == "mnist_svhn":
        write_mnist(folder / "made", compress=False, images=np.repeat(IMAGES, 4, 0), labels=np.repeat(LABELS, 4))
        return partial(call, make_idx, "--data-dir", folder / "made", "--svhn", "synthetic")
    if kind == "vision":
        return partial(setup.main, setup.Grayscale(sources / "img_align_celeba", folder / "made", jobs=1))
    options = ("--epochs", 1, "--annealing-epochs", 1, "--batch-size", 3, "--n-latents", 6, "--resume")
    places = ("--data-dir", sources, "--cache-dir", folder / "made", "--save-dir", folder / "run")
    return partial(call, import_module("celeba.train"), *options, *places)


@pytest.mark.parametrize("kind", ["multimnist", "mnist_svhn", "vision", "celeba"])
def test_generating_and_caching_that_is_killed_ends_with_the_same_files(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(multimnist.data, "N", {"train": 300, "test": 60})
    rng, kills = random.Random(kind), 0
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    seconds, n_changes = finished(generating(kind, tmp_path / "whole"), tmp_path)
    work = generating(kind, tmp_path / "killed")
    for _ in range(scaled(1)):
        kills += killed(work, rng, seconds, n_changes)
    finished(work, tmp_path)
    whole, made = ({p.name: content(p) for p in (tmp_path / x / "made").iterdir()} for x in ("whole", "killed"))
    assert whole.keys() == made.keys()
    assert all(equal(whole[name], made[name]) for name in whole)
    record("kill -9 in generating and caching", {"fine": kills})


def content(path):
    """The arrays of an npz file, whose bytes hold the time; the bytes of other files."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) if arrays[name].shape else str(arrays[name]) for name in arrays}


@pytest.mark.parametrize("kind", ["multimnist", "mnist_svhn", "vision"])
def test_a_folder_that_another_process_fills_is_refused(kind, tmp_path):
    work = generating(kind, tmp_path)
    with locked(tmp_path / "made"):
        attack("two generators of one folder", [(kind, work)], refused=True)
