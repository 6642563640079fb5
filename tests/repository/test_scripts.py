"""Every script is listed, and runs from the root."""

import subprocess
import sys

from tests.helpers.scripts import ROOT

SCRIPTS = {
    f"{folder}/{script}.py"
    for folder in ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision", "translation")
    for script in ("train", "sample", "loglike", "analyse")
} | {
    "tools/publish.py",
    "vision/setup.py",
    "multimnist/generate.py",
    "mnist/weak_supervision.py",
    "mnist/gradients.py",
    "mnist/halves.py",
    "mnist/pixels.py",
    "mnist/compare.py",
    "mnist/search.py",
    "mnist/label_expert.py",
    "fashionmnist/weak_supervision.py",
    "multimnist/weak_supervision.py",
    "celeba/weak_supervision.py",
    "mnist_svhn/make_idx.py",
    "mnist_svhn/train.py",
    "mnist_svhn/sample.py",
    "mnist_svhn/loglike.py",
    "mnist_svhn/analyse.py",
    "reference/mvae.py",
    "reference/mmvae.py",
    "polymnist/train.py",
    "polymnist/sample.py",
    "polymnist/loglike.py",
    "polymnist/analyse.py",
    "cub/features.py",
    "cub/train.py",
    "cub/sample.py",
    "cub/loglike.py",
    "cub/analyse.py",
    "tools/benchmarks/__main__.py",
    "tools/benchmarks/vhe.py",
    "vhe/train.py",
    "vhe/sample.py",
    "vhe/loglike.py",
    "vhe/classify.py",
    "vhe/example_czx.py",
    "vhe/example_hierarchical.py",
    "vhe/example_factorial.py",
}


def test_every_script_is_listed_here():
    folders = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    scripts = [path for path in sources if '__name__ == "__main__"' in path.read_text()]
    assert {path.relative_to(ROOT).as_posix() for path in scripts} == SCRIPTS


def test_modules_run_from_the_root_and_errors_take_one_line(tmp_path):
    command = [sys.executable, "-m", "mnist.train", "--data-dir", str(tmp_path), "--save-dir", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}/MNIST/raw/train-images-idx3-ubyte.gz is missing")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
