"""Trackers of runs: TensorBoard, Weights & Biases and MLflow.

All write below the save-dir without a network. WANDB_MODE=online and MLFLOW_TRACKING_URI, the packages' own variables,
send a run to a server instead. A resumed run is the same run to them.
"""

import json
import os
import re
import secrets
from collections.abc import Sequence
from importlib.util import find_spec
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

    identity = run.dir / "wandb" / "run_id"
    if not identity.exists():
        identity.parent.mkdir(exist_ok=True)
        write_atomically(identity, secrets.token_hex(4).encode())
    names = {"project": run.experiment, "name": run.dir.name, "id": identity.read_text()}
    mode = os.environ.get("WANDB_MODE", "offline")
    try:
        tracked = wandb.init(**names, dir=run.dir, resume="allow", mode=mode, config=run.config)
    except wandb.errors.Error as error:
        raise InputError(f"--track wandb: {brief(error)}") from error
    run.enter_context(tracked)
    return lambda run, line: tracked.log(figures(line), step=line["epoch"])


def _mlflow(run: Run) -> Callback:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would look for a network
    import mlflow

    folder = run.dir.resolve() / "mlflow"
    folder.mkdir(exist_ok=True)
    identity = folder / "run_id"
    known = identity.read_text() if identity.exists() else None
    try:
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"))
        mlflow.set_experiment(run.experiment)
        tracked = run.enter_context(mlflow.start_run(known, run_name=run.dir.name))
        if not known:
            mlflow.log_params({name: str(value)[:500] for name, value in run.config.items()})  # longer ones are refused
            write_atomically(identity, tracked.info.run_id.encode())
    except mlflow.MlflowException as error:
        raise InputError(f"--track mlflow: {brief(error)}") from error

    def log(run: Run, line: Epoch) -> None:
        allowed = {re.sub(r"[^\w.\- :/]", "_", name): value for name, value in figures(line).items()}
        mlflow.log_metrics(allowed, step=line["epoch"])

    return log
