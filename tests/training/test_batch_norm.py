from types import SimpleNamespace

import pytest
import torch
from torch import nn

from celeba.model import build as faces
from common import distributed
from common.data import Examples
from common.errors import InputError
from common.objectives import MvaeElbo
from mnist.model import build as digits
from training import batch_norm


def of_faces(**options):
    return MvaeElbo(
        faces(SimpleNamespace(n_latents=4, n_private=None, n_clusters=None, model="mvae", posterior="gaussian")),
        **options,
    )


def of_digits():
    return MvaeElbo(digits(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")))


@pytest.mark.parametrize(
    ("objective", "n", "mask", "message"),
    [
        (of_digits, 8, None, "needs a model with batch norm, this one has none: leave it out"),
        (of_faces, 8, torch.tensor([[True, False]] * 8), "needs all modalities of all examples"),
        (of_faces, 9, None, "needs two rows for each process: a batch has 1 for 2, choose another --batch-size"),
        (of_faces, 11, None, "needs two rows for each process: a batch has 3 for 2"),
        (of_faces, 3, None, "needs two rows for each process: a batch has 3 for 2"),
    ],
)
def test_what_processes_would_do_unequally_often_is_refused(monkeypatch, objective, n, mask, message):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(InputError, match=message):
        batch_norm.check_synchronised(objective(), Examples({"image": torch.zeros(n, 1)}, mask=mask), 4)


def test_random_terms_are_refused():
    objective = of_faces()
    objective.random_subsets = True
    with pytest.raises(InputError, match="the same terms in each step"):
        batch_norm.check_synchronised(objective, Examples({"image": torch.zeros(8, 1)}), 4)


def test_batches_with_two_rows_for_each_process_are_accepted(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    batch_norm.check_synchronised(of_faces(), Examples({"image": torch.zeros(12, 1)}), 4)


def test_evaluation_and_checkpoints_are_those_of_plain_batch_norm():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, momentum=0.3))
    plain(torch.randn(7, 3))
    x = torch.randn(4, 3)
    expected, before = plain.eval()(x), dict(plain.named_parameters())
    batch_norm.synchronise(plain)
    assert isinstance(plain[1], batch_norm.SynchronisedBatchNorm) and plain[1].momentum == 0.3
    assert plain.state_dict().keys() == nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).state_dict().keys()
    assert all(parameter is before[name] for name, parameter in plain.named_parameters())
    torch.testing.assert_close(plain.eval()(x), expected)
