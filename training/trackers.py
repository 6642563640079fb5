"""Trackers of runs: TensorBoard, Weights & Biases and MLflow.

All write below the save-dir without a network. WANDB_MODE=online and MLFLOW_TRACKING_URI, the packages' own variables,
send a run to a server instead. A resumed run is the same run to them.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent

from common.errors import InputError, brief, require
from common.io import write_atomically
from training.runs import Callback, Epoch, Run

PACKAGES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),  # mlflow-skinny lacks the last two, which SQLite needs
}


def check_installed(names: Sequence[str]) -> None:
    """Raise InputError if a tracker's packages are not installed."""
    for name in names:
        missing = [package for package in PACKAGES[name] if find_spec(package) is None]
        require(not missing, f'--track {name} needs {" and ".join(missing)}: pip install -e ".[{name}]"')


def start(names: Sequence[str], run: Run) -> list[Callback]:
    """Start the trackers of a run, which end with it, and return the callbacks that follow its epochs.

    Only the process that writes the run tracks it.

    Raises:
        InputError: a tracker cannot start, such as one whose server does not answer.
    """
    trackers = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
    return [trackers[name](run) for name in dict.fromkeys(names) if run.writes]


def figures(line: Epoch) -> dict[str, float]:
    """An epoch's metrics by name, such as "valid/bound" or "lr"."""
    single = {name: x for name, x in line.items() if name not in ("epoch", "train", "valid")}
    return single | {f"{split}/{name}": x for split in ("train", "valid") for name, x in line.get(split, {}).items()}


def _tensorboard(run: Run) -> Callback:
    from torch.utils.tensorboard import SummaryWriter

    writer = run.enter_context(SummaryWriter(run.dir / "tensorboard"))
    verbatim = indent(json.dumps(run.config, indent=4), "    ")  # in Markdown
    writer.add_text("config", verbatim, len(run.metrics))

    def log(run: Run, line: Epoch) -> None:
        for name, value in figures(line).items():
            writer.add_scalar(name, value, line["epoch"])
        writer.flush()

    return log


def _wandb(run: Run) -> Callback:
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    identity = _kept(run.dir / "wandb", lambda: secrets.token_hex(4))
    names = {"project": run.experiment, "name": run.dir.name, "id": identity}
    try:
        tracked = wandb.init(**names, dir=run.dir, resume="allow", mode=mode, config=run.config)
    except wandb.errors.Error as error:
        raise InputError(f"--track wandb: {brief(error)}") from error
    run.enter_context(tracked)
    return lambda run, line: tracked.log(figures(line), step=line["epoch"])


def _mlflow(run: Run) -> Callback:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would look for a network
    from mlflow import MlflowClient, MlflowException
    from mlflow.entities import Metric, Param

    folder = run.dir.resolve() / "mlflow"
    folder.mkdir(exist_ok=True)

    def start_run() -> str:
        known = client.get_experiment_by_name(run.experiment)
        experiment = known.experiment_id if known else client.create_experiment(run.experiment)
        identity = client.create_run(experiment, run_name=run.dir.name).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in run.config.items()]  # longer ones are refused
        client.log_batch(identity, params=params)
        return identity

    try:
        client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"))
        key = _kept(folder, start_run)
        client.update_run(key, status="RUNNING")
    except MlflowException as error:
        raise InputError(f"--track mlflow: {brief(error)}") from error
    ends = {None: "FINISHED", KeyboardInterrupt: "KILLED"}
    run.push(lambda kind, *_: client.set_terminated(key, ends.get(kind, "FAILED")))

    def log(run: Run, line: Epoch) -> None:
        now, epoch = int(1000 * time.time()), line["epoch"]
        allowed = {re.sub(r"[^\w.\- :/]", "_", name): value for name, value in figures(line).items()}
        client.log_batch(key, [Metric(name, value, now, epoch) for name, value in allowed.items()])

    return log


def _kept(folder: Path, make: Callable[[], str]) -> str:
    """A tracker's name of the run, made once and kept in its folder, by which a resumed run finds it."""
    file = folder / "run_id"
    if not file.exists():
        folder.mkdir(exist_ok=True)
        write_atomically(file, make().encode())
    return file.read_text()
