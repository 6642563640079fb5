"""Choose the settings of a model by the validation images alone: no test image is read.

    python search.py --data-dir data --precision bf16                12 settings, each with 3 seeds
    python search.py --data-dir data --precision bf16 --trials 24    12 more
    python search.py --demo                                          on built-in digits, in a minute

Optuna proposes --lambda-text, --annealing-epochs, --lr and --batch-size. A setting is trained with each seed, as
train.py does, and scored by log p(image, text) of the validation images with samples of q(z|image): a high score needs
a good model of images that also infers the label from them. The same command goes on after Ctrl-C or a kill. It writes
a table, and ends with the command that trains the best setting.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import tyro

from common.checkpoints import load_model
from common.data import Examples
from common.data.splits import hold_out
from common.errors import Diverged, InputError, flag, install, option, require, require_different, require_positive
from common.estimators import evaluate_batches, log_marginal
from common.execution import devices
from common.io import locked
from common.progress import progress_bar
from mnist import train
from mnist.data import MNIST, binarised
from reports import tables
from training import options, run_from_command_line, runs
from training.options import NOT_OF_THE_RUN
from training.parallel import default_jobs, in_parallel, logged

if TYPE_CHECKING:
    import optuna

SPACE = {
    "lambda_text": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0),
    "annealing": (0.0, 0.1, 0.2, 0.4, 0.6, 0.8),  # share of the epochs
    "lr": (3e-4, 5e-4, 1e-3, 2e-3),
    "batch_size": (50, 100, 200),
}
# tried first: the settings of the authors' code, with a low and with a high weight of the label
FIRST = tuple({"lambda_text": x, "annealing": 0.4, "lr": 1e-3, "batch_size": 100} for x in (1.0, 10.0, 50.0))
CHOSEN = ("lambda_text", "annealing_epochs", "lr", "batch_size")
NOT_COMPARED = NOT_OF_THE_RUN | runs.SPEED | runs.REPORTING | {"trials", "jobs", *CHOSEN}
BATCH_SIZE = 100


@dataclass
class Config(train.Config):
    """The options of the search, and those of train.py that it does not choose."""

    trials: int = 12
    """settings to try in all"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """trainings of each setting"""
    n_samples: int = 100
    """importance samples for each validation image"""
    jobs: int | None = None
    """settings at once, each in a process. None: one per core; one with --cuda"""
    epochs: int = 40
    save_dir: Path = Path("search")
    """folder for the runs, the study and the table"""
    model: Literal["mvae", "mvae-q", "jmvae", "bivcca", "mopoe"] = "mvae"
    """the models of images and labels (see python train.py --help)"""
    # what the search chooses, or what makes no sense here
    lambda_text: tyro.conf.Suppress[float] = 1.0
    annealing_epochs: tyro.conf.Suppress[int] = 0
    lr: tyro.conf.Suppress[float] = 1e-3
    batch_size: tyro.conf.Suppress[int] = 100
    resume: tyro.conf.Suppress[bool] = True
    seed: tyro.conf.Suppress[int] = 0
    experiment: tyro.conf.Suppress[str] = ""
    pre_trained: tyro.conf.Suppress[Path | None] = None
    settings: tyro.conf.Suppress[str] = "recommended"

    def check(self) -> None:
        super().check()
        require_different(self, "seeds")
        require_positive(self, "trials", "n_samples", "jobs")
        n = math.prod(map(len, SPACE.values()))
        require(self.trials <= n, f"--trials {self.trials} is more than the {n} possible settings: give fewer")

    def runs(self, setting: Mapping[str, Any]) -> list[train.Config]:
        """The configurations of train.py, one for each seed."""
        chosen = {name: setting[name] for name in ("lambda_text", "lr", "batch_size")}
        chosen["annealing_epochs"] = round(setting["annealing"] * self.epochs)
        config = train.Config(**{field.name: getattr(self, field.name) for field in fields(train.Config)} | chosen)
        folder = "_".join(f"{name}={value}" for name, value in chosen.items())
        return [replace(config, seed=seed, save_dir=self.save_dir / f"{folder}_seed{seed}") for seed in self.seeds]


DEMO = Config(demo=True, epochs=10, lr_schedule="constant", trials=3, seeds=(0,))


def main(config: Config) -> "list[optuna.trial.FrozenTrial]":
    """Try settings; returns those that were tried, the best first.

    Raises:
        InputError: options or data that cannot be used, a search with other options in the save-dir, or no setting
            could be trained.
    """
    require(find_spec("optuna") is not None, f"search.py needs optuna: {install('optuna')}")
    config.check()
    with locked(config.save_dir):
        validation(config)
        opened = study(config)
        _require_same_options(opened, config)
        for setting in FIRST:
            opened.enqueue_trial(setting, skip_if_exists=True)
        for killed in running(opened):
            opened.tell(killed.number, state=killed.state.FAIL)
            opened.enqueue_trial(killed.params)
        done = len(tried(opened))
        jobs = config.jobs or default_jobs(config.cuda)
        with progress_bar(initial=done, total=config.trials, unit=" settings") as bar:
            for score in in_parallel(partial(try_one, config=config), range(done, config.trials), jobs):
                bar.set_postfix_str(score)
                bar.update()
        return report(tried(opened), config)


def study(config: Config, seed: int = 0) -> "optuna.Study":
    """Open the study in the save-dir, or begin one; `seed` is that of the proposals.

    Raises:
        InputError: its file is damaged.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = config.save_dir / "study.log"
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
        sampler = optuna.samplers.TPESampler(seed=seed)
        return optuna.create_study(
            storage=storage, sampler=sampler, study_name="mnist", direction="maximize", load_if_exists=True
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is damaged: delete it; finished trainings are used again") from error


def _require_same_options(opened: "optuna.Study", config: Config) -> None:
    """Raise InputError if the study was begun with options that give other scores."""
    ours = {name: value for name, value in options.as_json(config).items() if name not in NOT_COMPARED}
    ours = json.loads(json.dumps(ours))
    theirs, remedy = opened.user_attrs.get("options", ours), "choose another --save-dir"
    different = [flag(name, theirs.get(name)) for name in ours if theirs.get(name) != ours[name]]
    require(not different, f"{config.save_dir} holds a search with {' '.join(different)}: {remedy}")
    choices = [item for trial in opened.get_trials() for item in trial.distributions.items()]
    same = all(tuple(choice.choices) == SPACE[name] for name, choice in choices)
    require(same, f"{config.save_dir} holds a search among other settings than SPACE here: {remedy}")
    opened.set_user_attr("options", ours)


def tried(opened: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The settings that were scored, or whose training diverged."""
    return [trial for trial in opened.get_trials() if trial.value is not None or "diverged" in trial.user_attrs]


def running(opened: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The settings that were proposed and not yet scored."""
    return [trial for trial in opened.get_trials() if trial.state == trial.state.RUNNING]


def try_one(seed: int, config: Config) -> str:
    """Train and score the next setting; returns its score in words."""
    from optuna.trial import TrialState

    opened = study(config, seed)
    trial = new_setting(opened)
    try:
        scores = [score(run, config.n_samples) for run in config.runs(trial.params)]
    except Diverged as error:
        trial.set_user_attr("diverged", str(error))
        opened.tell(trial, state=TrialState.FAIL)
        return "diverged"
    trial.set_user_attr("scores", scores)
    mean, _ = tables.spread(scores)
    opened.tell(trial, mean)
    return f"log p(image, text) {mean:.3f}"


def new_setting(opened: "optuna.Study") -> "optuna.Trial":
    """The next proposal that no process has tried or is trying."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState

    while True:
        trial = opened.ask({name: CategoricalDistribution(choices) for name, choices in SPACE.items()})
        before = tried(opened) + [other for other in running(opened) if other.number < trial.number]
        if trial.params not in [other.params for other in before]:
            return trial
        opened.tell(trial, state=TrialState.PRUNED)


def score(config: train.Config, n_samples: int) -> float:
    """Train a model, as far as it is not there yet, and return its mean log p(image, text) of validation images."""
    with logged(config.save_dir):
        train.main(config)
    device = devices.select(config.cuda)
    model = load_model(config.save_dir, MNIST.name).to(device)
    torch.manual_seed(0)
    estimate = partial(log_marginal, model, target=("image", "text"), given=("image",), n_samples=n_samples)
    images = validation(config).to(device)
    values = evaluate_batches(images, BATCH_SIZE, lambda batch: {"log p": estimate(batch)})
    return values["log p"].double().mean().item()


def validation(config: train.Config) -> Examples:
    """The images and labels that settings are scored by.

    Raises:
        InputError: there are none.
    """
    _, valid = hold_out(MNIST.load("train", config), config.valid)
    require(valid is not None, "a search needs validation images: leave out --valid 0, or raise --limit")
    return binarised(valid) if config.binary else valid


def report(trials: "list[optuna.trial.FrozenTrial]", config: Config) -> "list[optuna.trial.FrozenTrial]":
    """Write the table of all settings, and print the command of the best; returns the trials, the best first.

    Raises:
        InputError: no setting could be trained.
    """
    trials = sorted(trials, key=lambda trial: -torch.inf if trial.value is None else trial.value, reverse=True)
    first = trials[0]
    require(first.value is not None, f"every setting diverged: {first.user_attrs.get('diverged')}")
    rows, figures = [], []
    for trial in trials:
        run, scores = config.runs(trial.params)[0], trial.user_attrs.get("scores")
        setting = {name: getattr(run, name) for name in CHOSEN}
        value = tables.over_seeds(scores, "{:.3f}".format) if scores else "diverged"
        rows.append((*(f"{x:g}" for x in setting.values()), value))
        figures.append({**setting, "scores": scores})
    seeds = ", ".join(map(str, config.seeds))
    table = tables.Table(
        "trials",
        figures,
        (*(option(name) for name in CHOSEN), "log p(image,text)"),
        rows,
        notes=f"Validation images, nats; mean and standard deviation over the seeds {seeds}.",
    )
    stem = config.save_dir / "search"
    tables.report_runs(stem, MNIST.name, table, {"config": options.as_json(config)})
    print(f"{stem}.md and .json\n{command(config.runs(first.params)[0])}")
    return trials


def command(config: train.Config) -> str:
    """The command of train.py that trains a setting, with the options that are not its defaults."""
    elsewhere = {"seed", "save_dir", "resume"}
    given = [field for field in fields(config) if field.name not in elsewhere]
    words = [flag(x.name, value) for x in given if (value := getattr(config, x.name)) != x.default or x.name in CHOSEN]
    return " ".join(["python train.py", *words])


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
