"""Trackers: the real packages write to disk without a network, and what they wrote is read back."""

import json
from pathlib import Path
from types import SimpleNamespace

from common.errors import InputError
from mnist import train as mnist_train
from tests.helpers.runs import config
from training import trackers

import pytest

LINE = {"epoch": 3, "train": {"bound": -2.0, "a/kl": 1.0}, "beta": 0.5, "lr": 1e-3, "valid": {"bound": -3.0}}


def test_metrics_have_names():
    figures = {"train/bound": -2.0, "train/a/kl": 1.0, "valid/bound": -3.0, "beta": 0.5, "lr": 1e-3}
    assert trackers.figures(LINE) == figures


def test_missing_packages_are_named_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name in ("wandb", "alembic") else object())
    for name, missing in (("wandb", "wandb"), ("mlflow", "alembic")):
        with pytest.raises(InputError, match=rf'^--track {name} needs {missing}: pip install -e "\.\[{name}\]"$'):
            mnist_train.main(config(tmp_path / "run", track=("tensorboard", name)))
    assert not (tmp_path / "run").exists()


def test_only_the_process_that_writes_tracks():
    assert trackers.start(list(trackers.PACKAGES), SimpleNamespace(writes=False)) == []


def tracked(folder, name):
    """A run that was resumed, and what it must have tracked: {epoch: {metric: value}}."""
    mnist_train.main(config(folder, limit=60, epochs=2, track=(name,)))
    mnist_train.main(config(folder, limit=60, epochs=3, track=(name,), resume=True))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    return {line["epoch"]: pytest.approx(trackers.figures(line)) for line in lines}


@pytest.mark.slow
def test_tensorboard(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    expected = tracked(tmp_path, "tensorboard")
    written = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = {}
    for name in written.Tags()["scalars"]:
        events = written.Scalars(name)
        assert [event.step for event in events] == [1, 2, 3], "each epoch once"
        for event in events:
            values.setdefault(event.step, {})[name] = event.value
    assert values == expected
    texts = [event.tensor_proto.string_val[0].decode() for event in written.Tensors("config/text_summary")]
    assert [json.loads(text)["epochs"] for text in texts] == [2, 3]


@pytest.mark.slow
def test_wandb(tmp_path, monkeypatch):
    """Its files are for its own server to read: what it is told is what it has accepted."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    values, told = {}, []

    def log(self, figures, step, original=wandb.Run.log):
        original(self, figures, step=step)
        assert step not in values, "each epoch once"
        values[step] = dict(figures)
        told.append((self.project, self.id, self.config["epochs"]))

    monkeypatch.setattr(wandb.Run, "log", log)
    assert tracked(tmp_path, "wandb") == values
    (identity,) = {name for _, name, _ in told}
    assert told == [("mnist", identity, 2), ("mnist", identity, 2), ("mnist", identity, 3)]
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{identity}.wandb"] * 2, "one run, in two parts"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy", "ignore:.*:ResourceWarning")
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = tracked(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mnist").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["epochs"] == "2" and run.data.params["lr"] == "0.001"
    values = {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted(metric.step for metric in history) == [1, 2, 3], "each epoch once"
        for metric in history:
            values.setdefault(metric.step, {})[name] = metric.value
    assert values == expected
    assert [path.name for path in Path.cwd().iterdir()] == ["run"], "nothing beside the save-dir"
