import pytest
import torch

from common.training import devices


def relative_error(n):
    x, y = torch.randn(n, n), torch.randn(n, n)
    exact = x.double() @ y.double()
    return ((x @ y - exact).norm() / exact.norm()).item()


@pytest.fixture(autouse=True)
def _keep_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("n", [64, 300, 1024])
def test_products_on_the_cpu_stay_float32(n):
    """Whichever library is taken: rounding to bfloat16 would leave errors near 2e-3."""
    assert devices.select(cuda=False) == torch.device("cpu")
    assert relative_error(n) < 1e-5


def test_a_library_that_rounds_is_not_taken(monkeypatch):
    def rounded(self, other):
        if torch.get_float32_matmul_precision() == "medium" and self.dtype == torch.float32:
            return original(self.bfloat16().float(), other.bfloat16().float())
        return original(self, other)

    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    devices.select(cuda=False)
    assert torch.get_float32_matmul_precision() == "highest"
