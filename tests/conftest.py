import os

# small models gain nothing from more threads, lose much where cores are busy, and resume bit for bit only with the
# same number; scripts that tests start inherit it
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
