"""Long trainings: memory and descriptors stay as they are."""

import os

from common.data import Examples
from common.objectives import StandardElbo
from tests.common.test_checkpoints import PairsConfig, build_pairs
from tests.faults.attack import record, scaled
from training import Trainer
from training.runs import Run

import psutil
import torch

STEPS = 50_000  # a twentieth of a million
EPOCHS = 20


def test_a_long_training_needs_no_more_memory_at_its_end(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    config = PairsConfig(save_dir=tmp_path, epochs=EPOCHS, batch_size=2, lr=1e-4, valid=0)
    model, data = build_pairs(config), Examples({name: torch.randn(2 * scaled(STEPS) // EPOCHS, 3) for name in "ab"})
    process, resident, descriptors = psutil.Process(), [], []
    log = Run.log

    def watched(run, line):
        log(run, line)
        resident.append(process.memory_info().rss)
        descriptors.append(process.num_fds())

    monkeypatch.setattr(Run, "log", watched)
    with Run("pairs", config) as run:
        Trainer(model, StandardElbo(model), data, None, config, run).fit()
    assert len(set(descriptors)) == 1, descriptors
    settled = resident[EPOCHS // 4 :]
    assert max(settled) < 1.01 * min(settled), [f"{x / 2**20:.1f} MiB" for x in resident]
    assert sorted(os.listdir(tmp_path)) == [
        ".lock",
        "checkpoint.pth.tar",
        "config.json",
        "metrics.jsonl",
        "model_best.pth.tar",
        "samples",
    ]
    record(f"memory of {scaled(STEPS):,} steps within 1 %", {"fine": 1})
