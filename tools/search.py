"""Choose options of a folder's train.py by its validation examples: no test example is read.

    python -m tools.search mnist --over lambda-text lr --data-dir mnist/data --epochs 20
    python -m tools.search polymnist --over n-latents=16:256 model=mmvae,mopoe --data-dir polymnist/data --jobs 2
    python -m tools.search mnist --over lambda-text=1,5,10,50 --target image text --given image --data-dir mnist/data

Optuna proposes values of the options after --over: NAME=A,B,C are the only ones, NAME=A:B is a range on a logarithmic
scale. A name alone is a range around the option's value, from a tenth to ten times a fraction, from a quarter to four
times a whole number; all of a choice. The values as given are tried first. All other options are those of train.py; its
--save-dir gets the runs, the study and the table.

A setting is scored by log p(target) of the validation examples, a lower bound by importance samples of q(z|given):
unlike the bound that is trained, it does not change its meaning with weights and beta. The same command goes on after
Ctrl-C or a kill. It ends with the command that trains the best setting.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from common.checkpoints import EXPERIMENTS, load_model
from common.data import Examples
from common.data.batches import check_known
from common.data.splits import only_complete
from common.errors import (
    InputError,
    brief,
    flag,
    install,
    option,
    require,
    require_different,
    require_positive,
)
from common.estimators import evaluate_batches, log_marginal
from common.io import locked, open_regular, reading
from common.multimodal_vae import MultimodalVAE
from common.progress import progress_bar
from reports import tables
from training import experiment_in, options, run_from_command_line, runs
from training.options import NOT_OF_THE_RUN, RunConfig, underived
from training.parallel import default_jobs, in_parallel, logged

import msgspec
import torch
import tyro

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FOLDERS = tuple(name for name, module in EXPERIMENTS.items() if module == f"{name}.model" and name != "vhe")
OF_THE_SCORE = {"seed", "valid", "limit", "demo", "data_dir", "save_dir"}  # decide the validation examples
NOT_COMPARED = NOT_OF_THE_RUN | runs.SPEED | runs.REPORTING | {"trials", "jobs", "folder"}
BATCH_SIZE = 100
AGAIN = "delete it; finished trainings are used again"


@dataclass(kw_only=True)
class Config:
    """The options of the search."""

    folder: tyro.conf.Positional[Literal[FOLDERS]]
    """the folder whose train.py is searched"""
    over: tuple[str, ...] = ()
    """options to choose: NAME, NAME=A,B,C or NAME=A:B"""
    trials: int = 12
    """settings to try in all"""
    seeds: tuple[int, ...] = ()
    """trainings of each setting. None: --seed alone"""
    target: tuple[str, ...] = ()
    """the modalities whose log-likelihood scores a setting. Default: all"""
    given: tuple[str, ...] = ()
    """the modalities of the proposal q(z|given). Default: all"""
    n_samples: int = 10
    """importance samples of each validation example; 1 gives the ELBO"""
    jobs: int | None = None
    """settings at once, each in a process. None: one per core; one with --cuda"""


@dataclass(frozen=True)
class Plan:
    """A search, in parts that other processes can be sent."""

    search: Config
    config: RunConfig
    """of train.py, with None for what other options imply"""

    @property
    def script(self) -> ModuleType:
        """The folder's train.py."""
        return import_module(f"{self.search.folder}.train")

    @property
    def journal(self) -> Path:
        """The file of the study."""
        return self.config.save_dir / "study.log"

    @property
    def space(self) -> "dict[str, BaseDistribution]":
        """The options to choose, and among which values."""
        return dict(spaces(self.search.over, self.runs({})[0]))

    def runs(self, setting: Mapping[str, Any]) -> list[RunConfig]:
        """The configs of train.py, one for each seed."""
        folder = self.config.save_dir / "_".join(f"{name}={value}" for name, value in setting.items())
        chosen = replace(self.config, **setting, resume=True, experiment="")
        return [
            replace(chosen, seed=seed, save_dir=folder.with_name(f"{folder.name}_seed{seed}"))
            for seed in self.search.seeds or (self.config.seed,)
        ]


def spaces(over: Sequence[str], config: RunConfig) -> "Iterator[tuple[str, BaseDistribution]]":
    """The options that --over names, with the distributions of their values.

    Raises:
        InputError: an option that train.py lacks, or values that it cannot have.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    hints = get_type_hints(type(config), include_extras=False)
    require(len(over) > 0, "--over names the options to choose, such as --over lr n-latents")
    for item in over:
        shown, _, values = item.lstrip("-").partition("=")
        name = shown.replace("-", "_")
        require(name in hints, f"--over {shown}: the train.py of this folder has no option --{shown}")
        require(name not in OF_THE_SCORE, f"--over {shown}: settings would be scored by other examples, leave it out")
        value = getattr(config, name)
        texts = values.split(",") if "," in values or ":" not in values else values.split(":")
        ends = [converted(text, hints[name], shown) for text in texts if text]
        if not values:
            choices = choices_of(hints[name])
            number = not choices and not isinstance(value, bool) and isinstance(value, int | float) and value > 0
            require(bool(choices) or number, f"--over {shown}: give its values, {shown}=A,B,C")
            factor = 10 if isinstance(value, float) else 4
            ends = list(choices) or [type(value)(max(value / factor, 1e-12)) or 1, value * factor]
            values = "" if choices else ":"
        if ":" in values:
            numbers = len(ends) == 2 and all(isinstance(x, int | float) for x in ends) and 0 < ends[0] < ends[1]
            require(numbers, f"--over {item}: a range is NAME=A:B, with 0 < A < B")
            kind = IntDistribution if all(isinstance(x, int) for x in ends) else FloatDistribution
            yield name, kind(*ends, log=True)
        else:
            require(len(set(ends)) == len(ends), f"--over {item}: give each value once")
            yield name, CategoricalDistribution(ends)


def choices_of(hint: Any) -> tuple:  # noqa: ANN401 (a type)
    """The values of a choice or of yes and no; () of other types."""
    if hint is bool:
        return (False, True)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for part in get_args(hint) if (found := choices_of(part))), ())


def converted(text: str, hint: Any, shown: str) -> Any:  # noqa: ANN401 (a value of an option)
    """A value as its option has it; InputError if it cannot."""
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"--over {shown}: {text!r} is no value of --{shown} ({brief(error)})") from error


def plan_of(given: Any) -> Plan:  # noqa: ANN401 (of the class that `config_of` makes)
    """A search's options and those of train.py, which the command line holds together."""
    search = Config(**{field.name: getattr(given, field.name) for field in fields(Config)})
    script = import_module(f"{search.folder}.train")
    return Plan(search, underived(script.Config(**{x.name: getattr(given, x.name) for x in fields(script.Config)})))


def config_of(folder: str) -> type:
    """The options of a folder's train.py and of the search, as one class."""
    given = {"folder": folder, "__annotations__": {"folder": tyro.conf.Positional[Literal[FOLDERS]]}}
    return dataclass(type("Config", (Config, import_module(f"{folder}.train").Config), given))


def main(given: Any) -> "list[optuna.trial.FrozenTrial]":  # noqa: ANN401 (see `plan_of`)
    """Try settings; returns those that were tried, the best first.

    Raises:
        InputError: options or data that cannot be used, a search with other options in the save-dir, or no setting
            could be trained.
    """
    require(find_spec("optuna") is not None, f"a search needs optuna: {install('optuna')}")
    plan = plan_of(given)
    search, config, space = plan.search, plan.config, plan.space
    as_given = plan.runs({})[0]
    as_given.check()
    require_positive(search, "trials", "n_samples", "jobs")
    if search.seeds:
        require_different(search, "seeds")
    sizes = [len(x.choices) if hasattr(x, "choices") else math.inf for x in space.values()]
    n = math.prod(sizes)
    require(search.trials <= n, f"--trials {search.trials} is more than the {n} possible settings: give fewer")
    with locked(config.save_dir):
        drop_torn_line(plan.journal)
        opened = study(plan)
        _require_same_options(opened, plan)
        first = {name: getattr(as_given, name) for name in space}
        if all(contains(space[name], value) for name, value in first.items()):
            opened.enqueue_trial(first, skip_if_exists=True)
        for killed in running(opened):
            opened.tell(killed.number, state=killed.state.FAIL)
            opened.enqueue_trial(killed.params)
        done = len(tried(opened))
        jobs = search.jobs or default_jobs(config.cuda)
        with progress_bar(initial=done, total=search.trials, unit=" settings") as bar:
            for score in in_parallel(partial(try_one, plan=plan), range(done, search.trials), jobs):
                bar.set_postfix_str(score)
                bar.update()
        return report(tried(opened), plan)


def contains(space: "BaseDistribution", value: Any) -> bool:  # noqa: ANN401 (a value of an option)
    """Whether a value can be proposed."""
    if hasattr(space, "choices"):
        return value in space.choices
    return value is not None and space.low <= value <= space.high


def study(plan: Plan, seed: int = 0) -> "optuna.Study":
    """Open the study in the save-dir, or begin one; `seed` is that of the proposals.

    Raises:
        InputError: its file is damaged, or cannot be written, then or by a method of the study.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:
                remedy = "free disk space, and the same command goes on"
                raise InputError(f"{plan.journal} could not be written ({error.strerror}): {remedy}") from error

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal, sampler = Journal(str(plan.journal)), optuna.samplers.TPESampler(seed=seed)
    with reading(plan.journal, AGAIN, "a search's study"):
        storage = optuna.storages.JournalStorage(journal)
        return optuna.create_study(
            storage=storage, sampler=sampler, study_name="search", direction="maximize", load_if_exists=True
        )


def drop_torn_line(file: Path) -> None:
    """Cut off a last line without its end, as a full disk or a kill leaves it: the next one would be written behind."""
    if os.path.lexists(file):
        with open_regular(file, AGAIN) as lines:
            content = lines.read()
        if content.startswith(b"{"):
            os.truncate(file, content.rfind(b"\n") + 1)


def _require_same_options(opened: "optuna.Study", plan: Plan) -> None:
    """Raise InputError if the study was begun with options that give other scores."""
    given = options.as_json(plan.config) | dataclasses.asdict(plan.search)
    ours = {name: value for name, value in given.items() if name not in NOT_COMPARED | {*plan.space}}
    ours = json.loads(json.dumps(ours))
    theirs, remedy = opened.user_attrs.get("options", ours), "choose another --save-dir"
    different = [flag(name, theirs.get(name)) for name in ours if theirs.get(name) != ours[name]]
    require(not different, f"{plan.config.save_dir} holds a search with {' '.join(different)}: {remedy}")
    opened.set_user_attr("options", ours)


def tried(opened: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The settings that were scored, or that could not be trained."""
    return [trial for trial in opened.get_trials() if trial.value is not None or "failed" in trial.user_attrs]


def running(opened: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The settings that were proposed and not yet scored."""
    return [trial for trial in opened.get_trials() if trial.state == trial.state.RUNNING]


def try_one(seed: int, plan: Plan) -> str:
    """Train and score the next setting; returns its score in words."""
    from optuna.trial import TrialState

    opened = study(plan, seed)
    trial = new_setting(opened, plan)
    try:
        scores = [score(config, plan) for config in plan.runs(trial.params)]
    except InputError as error:  # it diverged, or train.py refuses it
        trial.set_user_attr("failed", str(error))
        opened.tell(trial, state=TrialState.FAIL)
        return "failed"
    trial.set_user_attr("scores", scores)
    mean, _ = tables.spread(scores)
    opened.tell(trial, mean)
    return f"log p {mean:.3f}"


def new_setting(opened: "optuna.Study", plan: Plan) -> "optuna.Trial":
    """The next proposal that no process has tried or is trying."""
    from optuna.trial import TrialState

    while True:
        trial = opened.ask(plan.space)
        before = tried(opened) + [other for other in running(opened) if other.number < trial.number]
        if trial.params not in [other.params for other in before]:
            return trial
        opened.tell(trial, state=TrialState.PRUNED)


def score(config: RunConfig, plan: Plan) -> float:
    """Train a model, as far as it is not there yet, and return its mean log p(target) of the validation examples."""
    with logged(config.save_dir):
        plan.script.main(config)
    model = load_model(config.save_dir, plan.search.folder).to(config.select_device())
    target, given = plan.search.target or model.modelled, plan.search.given or model.modalities
    check_known((*target, *given), model.modalities)
    torch.manual_seed(0)
    estimate = partial(log_marginal, model, target=target, given=given, n_samples=plan.search.n_samples)
    valid = held_out(config, plan, model).to(model.device)
    values = evaluate_batches(valid, BATCH_SIZE, lambda batch: {"log p": estimate(batch)})
    return values["log p"].double().mean().item()


def held_out(config: RunConfig, plan: Plan, model: MultimodalVAE) -> Examples:
    """The validation examples of a run that have all modalities.

    Raises:
        InputError: there are none.
    """
    experiment = experiment_in(plan.script, config)
    _, valid = experiment.splits(config)
    require(valid is not None, "a search needs validation examples: leave out --valid 0, or raise --limit")
    return only_complete(experiment.examples(config, valid, model))[0]


def report(trials: "list[optuna.trial.FrozenTrial]", plan: Plan) -> "list[optuna.trial.FrozenTrial]":
    """Write the table of all settings, and print the command of the best; returns the trials, the best first.

    Raises:
        InputError: no setting could be trained.
    """
    trials = sorted(trials, key=lambda trial: -torch.inf if trial.value is None else trial.value, reverse=True)
    first = trials[0]
    require(first.value is not None, f"no setting could be trained: {first.user_attrs.get('failed')}")
    rows, figures = [], []
    for trial in trials:
        scores = trial.user_attrs.get("scores")
        value = tables.over_seeds(scores, "{:.3f}".format) if scores else "failed"
        rows.append((*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in trial.params.values()), value))
        figures.append({**trial.params, "scores": scores})
    target, given = (",".join(x) or "all" for x in (plan.search.target, plan.search.given))
    notes = (
        f"Validation examples, nats, {plan.search.n_samples} samples of q(z|{given}); mean and standard deviation over "
        f"the seeds {', '.join(str(x.seed) for x in plan.runs({}))}."
    )
    head = (*map(option, first.params), f"log p({target})")
    table = tables.Table("trials", figures, head, rows, notes=notes)
    stem = plan.config.save_dir / "search"
    tables.report_runs(stem, plan.search.folder, table, {"config": options.as_json(plan.config)})
    print(f"{stem}.md and .json\n{command(plan.runs(first.params)[0], first.params)}")
    return trials


def command(config: RunConfig, chosen: Mapping[str, Any]) -> str:
    """The command of train.py that trains a setting, with the options that are not its defaults."""
    elsewhere = {"seed", "save_dir", "resume"}
    ours, plain = underived(config), underived(type(config)())
    differ = (x.name for x in fields(config) if getattr(ours, x.name) != getattr(plain, x.name) or x.name in chosen)
    words = [flag(name, getattr(config, name)) for name in differ if name not in elsewhere]
    return " ".join(["python train.py", *words])


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else ""
    config, script = Config, None
    if folder in FOLDERS:
        config, script = config_of(folder), import_module(f"{folder}.train")
    demo = getattr(script, "DEMO", None)
    demo = demo and config(**{x.name: getattr(demo, x.name) for x in fields(demo)})
    run_from_command_line(main, config, __doc__, demo=demo)
