"""Trackers: the real packages write to disk without a network, and what they wrote is read back."""

import json
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import InputError
from mnist import train as mnist_train
from tests.helpers.runs import config
from training import trackers

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


def wandb_records(path):
    """The records of a finished run's file."""
    deadline = time.monotonic() + 20  # another process writes it
    while (records := list(_wandb_records(path.read_bytes())))[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return records


def _wandb_records(content):
    """The records of a file of Weights & Biases, which has LevelDB's format: parts of records in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, record = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, part = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # the whole record, or its end
            yield Record.FromString(record)
            record = b""


@pytest.mark.slow
def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    expected = tracked(tmp_path, "wandb")
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "one run, in two parts"
    values, configs = {}, []
    for record in (record for file in files for record in wandb_records(file)):
        if record.WhichOneof("record_type") == "history":
            items = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = items.pop("_step")
            assert step not in values, "each epoch once"
            values[step] = {name: value for name, value in items.items() if not name.startswith("_")}
        if record.WhichOneof("record_type") == "run":
            update = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            configs.append((record.run.project, update["epochs"]))
    assert values == expected
    assert configs == [("mnist", 2), ("mnist", 3)]


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
