import copy
import os
import subprocess
import sys

from common.execution import devices
from tests.helpers.scripts import ROOT
from tools.benchmarks.experiments import EXPERIMENTS

import pytest
import torch


@pytest.fixture(autouse=True)
def _keep_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_products_on_the_cpu_stay_float32():
    """Whichever library is taken: rounding to bfloat16 would leave errors near 2e-3."""
    assert devices.select(cuda=False) == torch.device("cpu")
    x, y = torch.randn(2, 300, 300)
    exact = x.double() @ y.double()
    assert (x @ y - exact).norm() < 1e-5 * exact.norm()


def test_a_library_that_rounds_is_not_taken(monkeypatch):
    def rounded(self, other):
        if torch.get_float32_matmul_precision() == "medium" and self.dtype == torch.float32:
            return original(self.bfloat16().float(), other.bfloat16().float())
        return original(self, other)

    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    devices.select(cuda=False)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
def test_denormal_numbers_are_zero_on_all_threads():
    code = "\n".join(
        [
            "import torch",
            "from common.execution import devices",
            "devices.select(cuda=False)",
            "torch.set_num_threads(2)",
            "print(torch.full((10**6,), 1e-30).mul(1e-10).count_nonzero().item())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


def test_no_more_threads_than_a_container_may_use(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    for allowed, expected in ((2, 2), (8, 2), (1, 1)):
        monkeypatch.setattr(devices, "cpu_count", lambda allowed=allowed: allowed)
        devices.select(cuda=False)
        assert torch.get_num_threads() == expected
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [({}, "10000"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")])
def test_waiting_threads_sleep_soon_unless_the_environment_says_otherwise(given, expected):
    """OpenMP itself says what it does."""
    code = "from mnist.train import *; run_from_command_line(lambda config: None, Config, '', ['--demo'])"
    environment = os.environ | {"OMP_DISPLAY_ENV": "verbose", **given}
    environment.pop("GOMP_SPINCOUNT", None)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if "GOMP_SPINCOUNT" not in run.stderr:
        pytest.skip("torch has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{expected}'" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_steps_in_bf16_have_the_bounds_and_gradients_of_float32(name):
    """CUB's gradients weigh samples by weights that change with the fifth of a nat."""
    experiment, found = EXPERIMENTS[name], []
    torch.manual_seed(0)
    model, batch = experiment.build(), experiment.examples(4)[:]
    for precision in ("fp32", "bf16"):
        objective = experiment.objective(devices.prepare(copy.deepcopy(model), torch.device("cpu"), precision))
        torch.manual_seed(1)
        experiment.objective.keywords.get("generator", torch.default_generator).manual_seed(1)  # of random subsets
        bound = objective.backward(batch, experiment.beta, 4)
        gradients = [p.grad.flatten() for p in objective.parameters() if p.grad is not None]
        found.append((bound.value, torch.cat(gradients)))
    (exact, gradient), (value, rounded) = found
    torch.testing.assert_close(value, exact, rtol=2e-3, atol=0)
    assert 1e-4 < (rounded - gradient).norm() / gradient.norm() < (0.25 if "cub" in name else 0.025)
