"""The import of torchvision in both states: operators compiled for this torch, and not."""

import subprocess
import sys

from tests.helpers.scripts import ROOT

import numpy as np
import pytest

STAND_IN = """
import torch
{prelude}
if not hasattr(torch.ops.torchvision, "nms"):
    {otherwise}
"""
DATASETS = "class MNIST: pass\n"
MISMATCHED = STAND_IN.format(prelude="", otherwise='raise RuntimeError("operator torchvision::nms does not exist")')
MATCHING = STAND_IN.format(
    prelude='library = torch.library.Library("torchvision", "DEF"); library.define("nms(Tensor a) -> Tensor")',
    otherwise='raise AssertionError("the compiled operator was not kept")',
)
BROKEN = STAND_IN.format(prelude="", otherwise='raise RuntimeError("libcudart.so.13: cannot open shared object file")')


def import_beside(folder, init):
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "datasets.py").write_text(DATASETS)
    for name in ("models", "transforms"):
        (package / f"{name}.py").write_text("")
    code = "from common.data.torchvision_import import datasets; datasets.MNIST; print(datasets.__file__)"
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; {code}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.slow
def test_it_imports_in_both_states_and_shows_any_other_failure(tmp_path):
    for name, init in (("mismatched", MISMATCHED), ("matching", MATCHING), ("broken", BROKEN)):
        (tmp_path / name).mkdir()
        result = import_beside(tmp_path / name, init)
        if init is BROKEN:
            assert result.returncode != 0 and "libcudart.so.13" in result.stderr
        else:
            assert result.returncode == 0, result.stderr
            assert result.stdout.startswith(str(tmp_path / name)), "the stand-in was the one imported"


def test_the_installed_one_works():
    from common.data.torchvision_import import datasets, transforms

    assert len(datasets.MNIST.resources) == 4
    image = transforms.ToTensor()(np.full((2, 3, 1), 51, dtype=np.uint8))
    assert image.shape == (1, 2, 3) and image.numpy() == pytest.approx(0.2)
