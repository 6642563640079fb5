"""The random states that a run goes on from, and draws beside them."""

from common.errors import InputError
from common.execution import random_states

import pytest
import torch

CPU = torch.device("cpu")


def draws_after(saved, seed=0, epoch=1, batch=2):
    torch.manual_seed(5)
    random_states.restore(saved, seed, epoch, batch, CPU)
    return torch.rand(3).tolist()


def test_a_saved_state_goes_on():
    torch.manual_seed(7)
    saved, expected = [{"cpu": torch.get_rng_state()}], torch.rand(3).tolist()
    assert draws_after(saved) == expected


def test_a_new_run_of_one_process_keeps_its_seed():
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    assert draws_after(None) == expected


def test_another_number_of_processes_draws_anew_and_never_what_it_drew_before():
    of_two = [{"cpu": torch.get_rng_state()}] * 2
    found = [draws_after(of_two), *(draws_after(of_two, **{name: 9}) for name in ("seed", "epoch", "batch"))]
    assert draws_after(of_two) == found[0]
    assert len({tuple(draws) for draws in [*found, draws_after(None)]}) == 5


@pytest.mark.parametrize("saved", [{"cpu": torch.zeros(3)}, {"cpu": torch.zeros(3, dtype=torch.uint8)}, {}])
def test_what_is_no_random_state_is_refused(saved):
    with pytest.raises(InputError, match="the last checkpoint is damaged, rng is not a random state: choose another"):
        draws_after([saved])


def test_draws_beside_leave_the_callers_and_touch_no_other_gpu(monkeypatch):
    torch.manual_seed(5)
    expected = torch.rand(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", None)
    seeded = []
    torch.manual_seed(5)
    drawn = [torch.rand(1)]
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with random_states.fixed_noise(7, CPU):
        beside = torch.rand(2)
    drawn.append(torch.rand(1))
    assert seeded == []
    assert torch.cat(drawn).equal(expected)
    torch.manual_seed(7)
    assert torch.rand(2).equal(beside)
