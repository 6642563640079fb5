"""Checkpoints written before the redesign of `common/` open after it, and mean the same.

tests/checkpoints/ holds what commit 63bdf43 wrote:

- halves_poe.tar.xz: the folder of a run of `python halves.py train` with one hidden unit, without pictures.
- runs.json: the options of the run's second epoch, and what `loglike --demo --limit 5 --n-samples 20` after the first
  epoch and the second epoch itself gave there.
- kinds.json: the configuration, the state dict's shapes and some numbers of each kind of model whose files are too
  large to keep (`tests.helpers.old_checkpoints`).
"""

import json
import re
import tarfile
from pathlib import Path

from common import estimators
from common.checkpoints import experiment_of, load_config, load_model
from common.errors import InputError
from common.estimators import QUALITIES
from mnist import halves
from tests.helpers import old_checkpoints
from tests.helpers.fusions import STANDARD_PRIOR

import pytest
import tyro

FOLDER = Path(__file__).parents[1] / "checkpoints"
RUNS = json.loads((FOLDER / "runs.json").read_text())
LOGLIKE = ["--demo", "--limit", "5", "--n-samples", "20"]
KINDS = json.loads((FOLDER / "kinds.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_opens(tmp_path, kind):
    experiment, config, shapes, values = (KINDS[kind][key] for key in ("experiment", "config", "shapes", "values"))
    old_checkpoints.write(tmp_path / "model_best.pth.tar", experiment, config, shapes)
    if "prior.scale" in shapes and kind.split()[-1] in (*STANDARD_PRIOR, "mvae"):
        with pytest.raises(InputError, match=r"model_best.pth.tar does not fit .* this posterior holds the prior N"):
            load_model(tmp_path)
        return
    model = load_model(tmp_path)
    assert old_checkpoints.shapes(model) == shapes, "what is saved now has the same keys, in the same order"
    assert old_checkpoints.values_of(model, experiment, config) == pytest.approx(values, rel=1e-4, abs=1e-4)


def test_a_runs_folder_opens(tmp_path, monkeypatch):
    monkeypatch.setattr(estimators, "EVERY", 1000)  # that commit drew no sample from the prior
    with tarfile.open(FOLDER / "halves_poe.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "halves_poe"
    options = json.loads((folder / "config.json").read_text())["config"]
    assert experiment_of(folder) == halves.main.keywords["name"] and load_config(folder) == options
    estimates = halves.main(tyro.cli(halves.Command, args=["loglike", str(folder), *LOGLIKE]))
    before = {
        re.sub(r"^effective samples, (\w+)", r"effective samples, log p(\1)", key): value
        for key, value in RUNS["halves_poe"]["estimates"].items()
    }
    newer = {key for key in estimates.keys() - before if key.startswith(QUALITIES)}
    means = {key: value["mean"] for key, value in estimates.items() if key not in newer}
    assert means == pytest.approx(before, rel=1e-3)
