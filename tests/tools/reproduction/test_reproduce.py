"""The command that makes the papers' tables anew."""

import contextlib
import importlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tyro
from filelock import lock_descriptor
from msgspec.structs import replace as replace_fields

import reproduce
from common.errors import InputError
from tests.helpers.results import contents, loglike, means, result
from tests.helpers.scripts import ROOT
from tools.reproduction import charts, commands, report, tables, work
from tools.reproduction.commands import Failed, call
from tools.reproduction.plans import TABLES
from tools.reproduction.published import Published
from tools.reproduction.records import Figure, Measure, Plan, Setting, Table
from tools.reproduction.scheduler import Pool
from tools.reproduction.work import RESULT

GIVEN = {str(n): {"coherence": 0.2 + 0.1 * n, "FD": 400.0 + 10 * n, "linear accuracy": 0.7} for n in (1, 2)}
POLYMNIST = {
    "estimates": means({"coherence, joint": 0.1}),
    "by_size": {"0": {"FD": 500.0}} | GIVEN | {"5": {"linear accuracy": 0.9}},
}

RECORDED = " 0.03 | a CPU | 2026-11-20 | 0123456+ |"  # the last columns


def test_a_table_has_the_papers_figures_beside_means_and_deviations_over_seeds():
    results = [result(seed=s, loglike=loglike(x)) for s, x in enumerate((-90.0, -91.0, -92.0))]
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], results)
    assert r"| figure | paper | ours | difference | ours, z from q(z\|x,y) | seeds |" in text
    lines = [
        f"log p(x) | -90.619 | -91.000 ± 1.000 | -0.381 ± 0.577 | -91.500 ± 1.000 | 0, 1, 2 | 80 | 50,000 |{RECORDED}",
        f"log p(x,y) | -90.859 | -92.000 ± 1.000 | -1.141 ± 0.577 |  | 0, 1, 2 | 80 | 50,000 |{RECORDED}",
        r"log p(x\|y) | -88.569 |  |  |  |  |  |  |  |  |  |  |",
    ]
    assert "".join(f"| mnist | mvae | {line}\n" for line in lines) in text
    assert "| fashionmnist | vae | log p(x) | -232.758 |  |  |  |  |  |  |  |  |  |  |" in text
    assert tables.DIFFERENCE in text and "†" not in text


@pytest.mark.parametrize(("seeds", "error"), [(1, 3), (2, math.sqrt(3**2 + 1 / 4))])
def test_the_error_of_a_difference_counts_images_that_are_not_the_papers(seeds, error):
    estimates = [{"estimates": {"log p(image)": {"mean": -6300 - x, "stderr": 3}}} for x in range(seeds)]
    results = [result(seed=i, experiment="celeba", loglike=measured) for i, measured in enumerate(estimates)]
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], results)
    assert f"| {-6300 - (seeds - 1) / 2 + 6236.923:+.3f} ± {error:.3f} |" in text


def test_a_single_seed_has_the_spread_of_a_model_with_several():
    several = [result(seed=s, loglike=loglike(x)) for s, x in enumerate((-90.0, -91.0, -92.0))]
    single = [result(model, loglike=loglike(-91.0)) for model in ("vae", "vae, binary")]
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], [*several, *single])
    assert "| mnist | vae | log p(x) | -91.126 | -91.000 | +0.126 ± 1.000 |" in text
    assert "| mnist | vae, binary | log p(x) | -86.313 | -91.000 | -4.687 |" in text, "it has other test images"
    several = [
        result(seed=s, loglike={"estimates": means({"log p(image), z from q(z|image,text)": x})})
        for s, x in enumerate((-90.0, -91.0, -92.0))
    ]
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], [*several, *single])
    assert "| mnist | vae | log p(x) | -91.126 | -91.000 | +0.126 ± 1.000 |" in text, "that of the other estimate"
    alone = tables.markdown("mvae-table2", TABLES["mvae-table2"], single)
    assert "| mnist | vae | log p(x) | -91.126 | -91.000 | +0.126 |" in alone


def test_a_table_of_all_experiments_says_how_each_was_trained():
    command = "python -m mnist.train --model jmvae --seed 0 --resume --data-dir a/b --cuda --save-dir c"
    results = [result("jmvae", loglike=loglike(-90.0)), result("vae", loglike=loglike(-91.0))]
    results[0].commands = [command]
    *_, line = tables.experiments(results).splitlines()
    figures = "log p(x); log p(x,y) | -90.697; -90.769 | -90.000; -91.000"
    assert line == f"| [mnist](mnist) | jmvae | `python train.py --model jmvae` | {figures} | 0 | 80 | 50,000 |"
    recalled = result(
        "mmvae", 0, "mmvae-table", "mnist_svhn", coherence={"estimates": means({"latent accuracy, mnist": 0.8})}
    )
    *_, line, _, dagger = tables.experiments([*results, recalled]).splitlines()
    assert "| mnist from z | 91.3 † | 80.0 |" in line and dagger == tables.DAGGER


def test_the_readme_and_the_tables_have_what_was_measured():
    results = tables.load(ROOT / "results")
    assert tables.put_in(ROOT / "README.md", results) == (ROOT / "README.md").read_text(), "run: make tables"
    for name in {x.table for x in results}:
        written = (ROOT / "results" / f"{name}.md").read_text()
        assert tables.markdown(name, TABLES[name], results) == written, "run: make tables"


def test_a_file_without_marks_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(InputError, match="has no lines <!-- experiments"):
        tables.put_in(tmp_path / "README.md", [])


def test_a_table_says_where_epochs_are_fewer_than_planned():
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], [result(given=3, loglike=loglike(-90.0))])
    assert f"| 0 | 3 of 80 | 50,000 |{RECORDED}" in text


def falling(seed):
    """A result of a training whose learning rate fell."""
    return replace_fields(result(seed=seed, loglike=loglike(-90.0)), config={"lr_schedule": "cosine"})


def test_a_table_says_how_the_learning_rate_fell():
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], [falling(0), result("vae", loglike=loglike(-91.0))])
    assert "| 0 | 80, cosine | 50,000 |" in text and "| 0 | 80 | 50,000 |" in text
    assert tables.SCHEDULE in text
    *_, line, _, note, _, _ = tables.experiments([falling(0)]).splitlines()
    assert "| 0 | 80, cosine | 50,000 |" in line and note == tables.SCHEDULE


def test_seeds_whose_learning_rates_fell_otherwise_are_not_averaged():
    results = [falling(0), result(seed=1, loglike=loglike(-90.0))]
    with pytest.raises(InputError, match="alike: --lr-schedule constant or --lr-schedule cosine; move those"):
        tables.rows("mvae-table2", TABLES["mvae-table2"], results)


def test_built_in_data_have_no_figure_in_a_paper():
    measured = replace_fields(result(loglike=loglike(-90.0)), demo=True)
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], [measured])
    lines = ["log p(x) | -90.000 | -90.500 | 0 | 80 | 50,000 |", "log p(x,y) | -91.000 |  | 0 | 80 | 50,000 |"]
    lines = [line + RECORDED for line in lines]
    assert "".join(f"| mnist | mvae | {line}\n" for line in lines) in text and "paper" not in text
    assert text.endswith(f"\n\n{tables.DEMO}\n")
    full = tables.markdown("mvae-table2", TABLES["mvae-table2"], [replace_fields(measured, demo=False)])
    assert tables.DEMO not in full


def test_what_was_not_recalled_has_no_dagger():
    coherence = {"estimates": means({"coherence, joint": 0.4, "latent accuracy, mnist": 0.8})}
    text = tables.markdown(
        "mmvae-table", TABLES["mmvae-table"], [result("mmvae", 0, "mmvae-table", "mnist_svhn", coherence=coherence)]
    )
    assert "| joint | 42.1 | 40.0 | -2.1 |" in text and "| mnist from z | 91.3 † | 80.0 | -11.3 |" in text


def weak_supervision(fraction, model, classifier):
    """A result of weak supervision with this fraction of pairs."""
    share = {"fraction": fraction, "model": model, "classifier": classifier}
    measured = {"results": [share]}
    return result(f"mvae, {100 * fraction:g} % paired", table="weak-supervision", weak_supervision=measured)


def test_weak_supervision_has_a_line_for_each_fraction_of_pairs():
    results = [weak_supervision(fraction, fraction, fraction / 2) for fraction in (0.1, 0.5)]
    text = tables.markdown("weak-supervision", TABLES["weak-supervision"], results)
    assert "| mvae, 10 % paired | 10.0 | 5.0 |" in text and "| mvae, 50 % paired | 50.0 | 25.0 |" in text
    assert not tables.experiments(results).count("paired")  # the README's table is one of models


def test_a_table_by_the_number_of_given_modalities():
    measured = result("mvae", 0, "polymnist-table", "polymnist", analysis=POLYMNIST)
    text = tables.markdown("polymnist-table", TABLES["polymnist-table"], [measured])
    first, second = text.split("\n\n")[1:3]
    assert "| coherence, 1 given | coherence, 1 given, published | coherence, 2 given |" in first
    ours_and_papers = "30.0 | 29.0 | 40.0 | 42.0 | 48.0 | 52.0 | 10.0 | 2.0 | 70.0 | 70.0 | 410.000 | 500.000"
    assert f"| polymnist | mvae | {ours_and_papers} | 0 | 80 | 50,000 |{RECORDED}" in first
    cells = {
        "joint, z from 10 Gaussians, published": "21.0",
        "linear accuracy, 2 given": "70.0",
        **{f"linear accuracy, {n} given, published": x for n, x in ((2, "84.0"), (3, "91.0"), (4, "93.0"))},
        "linear accuracy, 5 given": "90.0",
        "linear accuracy, 5 given, published": "95.0",
        "FD, 2 given": "420.000",
    }
    assert second.startswith(f"| experiment | model | {' | '.join(cells)} | seeds |")
    assert f"| polymnist | mvae | {' | '.join(cells.values())} | 0 | 80 | 50,000 |{RECORDED}" in second
    assert "difference" not in text and "The figures do not compare with ours." in text
    line = next(line for line in tables.experiments([measured]).splitlines() if "[polymnist]" in line)
    assert "| coherence, 1 given |  | 30.0 |" in line, "the README's column holds figures of the same data only"


def test_a_run_comes_after_that_which_it_starts_from():
    plans = [plan for plan in TABLES["vhe-table"].plans if plan.model == "pixelcnn, rescale"]
    ((first, second),) = reproduce.chains("vhe-table", plans, 7)
    assert (first.plan.model, second.plan.model, second.seed) == ("deconv, rescale", "pixelcnn, rescale", 7)
    assert len(reproduce.chains("vhe-table", TABLES["vhe-table"].plans, 0)) == 4


def test_an_unknown_experiment_is_named():
    with pytest.raises(InputError, match="--experiments emnist: vhe-table has vhe"):
        reproduce.main(reproduce.Config("vhe-table", experiments=("emnist",)))
    with pytest.raises(InputError, match="--models mopoe: mvae-table2 has vae cvae bivcca jmvae mvae-q mvae$"):
        reproduce.main(reproduce.Config("mvae-table2", experiments=("celeba",), models=("mopoe",)))
    with pytest.raises(InputError, match="--models mmvae: polymnist-table --demo has mopoe-published$"):
        reproduce.main(reproduce.Config("polymnist-table", models=("mmvae",), demo=True))
    with pytest.raises(InputError, match="--models 'mvae, binary': mvae-table2 has vae"):
        reproduce.Config("mvae-table2", experiments=("fashionmnist",), models=("mvae", "mvae, binary")).plans()


def test_the_commands_of_the_readme_and_of_the_help_name_what_there_is():
    text = (ROOT / "README.md").read_text() + reproduce.__doc__
    commands = re.findall(r"^ *python reproduce\.py (.*?)(?:  .*)?$", text, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        config = tyro.cli(reproduce.Config, args=shlex.split(command))
        config.check()
        assert config.plans()
        assert command.count("=") == len(config.cluster_parameters())


def test_parameters_of_the_cluster():
    given = ["all", "--cluster", "slurm", "--parameters", "timeout_min=60", "cpus_per_task=4", "slurm_partition=gpu"]
    config = tyro.cli(reproduce.Config, args=given)
    config.check()
    assert config.cluster_parameters() == {"timeout_min": 60, "cpus_per_task": 4, "slurm_partition": "gpu"}
    for wrong, message in (
        (["gpu"], "--parameters are KEY=VALUE, not 'gpu'"),
        (["timeout_min=60"], "--cluster slurm needs --parameters cpus_per_task=N"),
    ):
        with pytest.raises(InputError, match=message):
            reproduce.Config("all", cluster="slurm", parameters=tuple(wrong)).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (-1,)}, "--seeds must lie between 0 and 2.32 - 1, not -1"),
        ({"results_dir": Path("/dev/null/results")}, "/dev/null/results cannot be made"),
        ({"table": "all", "readme": Path(__file__)}, "has no lines"),
        ({"readme": Path(__file__)}, "--readme holds the results of all tables: give it with all, not --demo"),
        ({"table": "all", "demo": True, "readme": Path(__file__)}, "--readme holds the results of all tables"),
    ],
)
def test_what_no_run_could_use_is_refused_before_any(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(reproduce, "run", None)
    with pytest.raises(InputError, match=message):
        reproduce.main(reproduce.Config(**{"table": "mvae-table2", "save_dir": tmp_path} | options))


@pytest.mark.parametrize(
    ("cluster", "parameters", "message"),
    [("slurm", {}, "--cluster slurm: Could not detect"), ("local", {"colour": "x"}, "'colour' need to be")],
)
def test_clusters_and_parameters_that_are_not_there(tmp_path, cluster, parameters, message):
    with pytest.raises(InputError, match=message):
        list(Pool(tmp_path, cluster, 1, 1, False, parameters).execute([partial(dict.get, {}, "why")]))


@pytest.mark.slow
def test_each_run_at_a_time_has_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")
    pool = Pool(tmp_path, "local", 2, 1, True, {})
    found = [error for _, error in pool.execute([partial(os.getenv, "CUDA_VISIBLE_DEVICES")] * 2)]
    assert sorted(found) == ["2", "GPU-8932f937"]


def test_runs_of_other_options_are_not_averaged():
    options = ("--lr 1e-3 --epochs 3 --seed 0", "--lr 1e-3 --epochs 4 --seed 1", "--lr 1e-4 --seed 2")
    results = [
        replace_fields(result(seed=s, loglike=loglike(-90.0)), commands=[f"python -m mnist.train {x}"])
        for s, x in enumerate(options)
    ]
    assert tables.rows("mvae-table2", TABLES["mvae-table2"], results[:2])
    with pytest.raises(
        InputError,
        match="trained alike: python train.py --lr 1e-3 or python train.py --lr 1e-4; move those of one kind to",
    ):
        tables.rows("mvae-table2", TABLES["mvae-table2"], results)


@pytest.mark.slow
def test_a_failure_stops_no_other(tmp_path):
    pool = Pool(tmp_path, "local", 2, 1, False, {})
    good, failing = partial(dict.get, {}, "why"), partial(str.upper, "why")
    dying, broken = partial(os._exit, 3), partial(int, "x")
    found = {work.func: error for work, error in pool.execute([failing, dying, broken, good])}
    assert found[str.upper] == "WHY" and found[dict.get] is None
    assert all(re.fullmatch(r"it ended early: .*_0_log\.out", found[of]) for of in (os._exit, int))


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(Failed, match=rf"^no such thing \({tmp_path}"):
        call([sys.executable, "-c", "print('hello'); exit('no such thing')"], tmp_path, 1)


@pytest.mark.slow
def test_two_processes_do_not_work_in_the_same_folder(tmp_path):
    """Nor does one while a command still runs there whose own process was killed."""
    command = ["sh", "-c", "echo $$ && exec sleep 60"]
    code = "from pathlib import Path\nfrom tools.reproduction.commands import call\n"
    code += f"call({command}, Path({str(tmp_path)!r}), 1)"
    log = tmp_path / "log.txt"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        while not log.exists() or log.read_text().count("\n") < 2:
            time.sleep(0.05)
        with pytest.raises(Failed, match="another process is at work"):
            call(["true"], tmp_path, 1)
        other.kill()
    with pytest.raises(Failed, match="another process is at work"):
        call(["true"], tmp_path, 1)
    os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)
    with open(log) as file:
        lock_descriptor(file.fileno())  # waits until the command is dead
    call(["true"], tmp_path, 1)


TINY = "--limit 60 --batch-size 30"


@pytest.fixture
def table(monkeypatch):
    """Two trainings of seconds: one that fails, as soon as it starts."""
    measures = (Measure("loglike", "loglike", "", "--limit 5 --n-samples 2"),)
    good, bad = (
        Plan("mnist", model, Setting(80, 30), Setting(4, 2, f"{TINY} {options}"), measures, y="text")
        for model, options in (("mvae", ""), ("vae", "--n-latents 0"))
    )
    figures = (Figure("log p(x)", ("loglike", "estimates", "log p(image)", "mean")),)
    monkeypatch.setitem(reproduce.TABLES, "mvae-table2", Table("Nats", "a paper", figures, (good, bad)))


@pytest.mark.parametrize(
    ("hours", "epochs"),
    [
        (70 / 3600, 4),  # 20 s to measure, 10 s to start and draw again, 4 epochs of 10 s
        (1, 80),
        (39 / 3600, "the run has 39 s, measuring and training one epoch take 40 s: raise --budget"),
        (19 / 3600, "one epoch takes longer than the 19 s of the run: raise --budget"),
    ],
)
def test_a_budget_counts_the_epoch_that_measures_it(tmp_path, monkeypatch, hours, epochs):
    def train(command, folder, threads, seconds):
        if seconds < 20:
            raise commands.TooLong("stopped")
        (tmp_path / "probe").mkdir()
        clock[0] += 20

    clock = [0.0]
    (tmp_path / "probe").mkdir()  # of a start that was killed
    monkeypatch.setattr(work, "call", train)
    monkeypatch.setattr(work.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(work, "read_training", lambda folder: {"seconds": 10.0})
    site = commands.Site(tmp_path, tmp_path, False, False, "fp32", hours, 1)
    if isinstance(epochs, int):
        assert work.epochs_within(Setting(80, 30), lambda *_: [], tmp_path, site)[0] == epochs
    else:
        with pytest.raises(commands.Failed, match=f"^{epochs}$"):
            work.epochs_within(Setting(80, 30), lambda *_: [], tmp_path, site)
    assert not (tmp_path / "probe").exists()


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    with pytest.raises(commands.TooLong, match=r"^stopped after 1 s \(.*log.txt\)$"):
        commands.call([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 1, 1.0)


@pytest.mark.slow
def test_runs_are_measured_and_not_repeated(tmp_path, table, capsys):
    config = reproduce.Config("mvae-table2", seeds=(3,), demo=True, save_dir=tmp_path, budget=2)
    folder = tmp_path / "demo" / "mvae-table2" / "mnist" / "mvae_seed3"
    folder.mkdir(parents=True)
    (folder / "epochs.json").write_text("[1, 0]")  # as if a budget had left one epoch
    with pytest.raises(InputError, match="1 of these failed"):
        reproduce.main(config)
    said = capsys.readouterr()
    assert "mvae-table2/mnist/vae_seed3: error: --n-latents must be positive, not 0" in said.err
    assert re.search(r"\| mnist \| mvae \| -\d+\.\d{3} \| 3 \| 1 of 4 \| 50 \|", said.out)

    content = json.loads((folder / RESULT).read_text())
    assert content["config"]["annealing_epochs"] == 0 and content["config"]["seed"] == 3 and content["seconds"] > 0
    assert len(content["curves"]["train"]) == len(content["curves"]["valid"]) == 1
    assert content["commands"][0].endswith("--demo --save-dir mvae-table2/mnist/mvae_seed3")
    assert str(tmp_path) not in json.dumps(content), "paths of this machine"

    before = (folder / RESULT).stat().st_mtime_ns
    kept = tmp_path / "demo" / "results" / "mvae-table2" / "mnist" / "mvae_seed3.json"
    kept.unlink()
    again = reproduce.Config("mvae-table2", models=("mvae",), seeds=(3,), demo=True, save_dir=tmp_path, budget=2)
    reproduce.main(again)
    assert (folder / RESULT).stat().st_mtime_ns == before and json.loads(kept.read_text()) == content
    with pytest.raises(InputError, match="1 of these failed"):
        reproduce.main(replace(again, budget=None))
    assert f"{folder} was started with a --budget: give one, or choose another --save-dir" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, table, capsys):
    """As where the system runs out of memory."""
    config = reproduce.Config("mvae-table2", models=("mvae",), seeds=(3,), demo=True, save_dir=tmp_path)
    folder = tmp_path / "demo" / "mvae-table2" / "mnist" / "mvae_seed3"
    metrics = folder / "metrics.jsonl"

    def kill():
        while not (metrics.exists() and metrics.read_text()):
            time.sleep(0.01)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"--save-dir\0{folder}\0" in (process / "cmdline").read_text():
                    os.kill(int(process.name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match="1 of these failed"):
        reproduce.main(config)
    killer.join()
    assert f"stopped by SIGKILL ({folder / 'log.txt'})" in capsys.readouterr().err
    assert not (folder / RESULT).exists()
    assert reproduce.main(config)
    assert len(json.loads((folder / RESULT).read_text())["curves"]["train"]) == 4


@pytest.mark.slow
def test_ctrl_c_ends_all_without_a_traceback(tmp_path):
    """The terminal interrupts every process that it started, submitit's among them."""
    command = [sys.executable, "reproduce.py", "mvae-table2", "--experiments", "mnist", "--models", "mvae", "--demo"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    folder = tmp_path / "demo" / "mvae-table2" / "mnist" / "mvae_seed0"
    with subprocess.Popen([*command, "--jobs", "1", "--save-dir", str(tmp_path)], cwd=ROOT, **pipes) as process:
        while not (folder / "checkpoint.pth.tar").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in "".join(said)
    with open(folder / "log.txt") as log:
        lock_descriptor(log.fileno())  # waits until the training has ended
    assert not (folder / RESULT).exists()


@pytest.mark.slow
def test_missing_data_are_named_before_anything_runs(tmp_path, table, capsys):
    (tmp_path / "data").mkdir()
    config = reproduce.Config("mvae-table2", seeds=(0,), data_dir=tmp_path / "data", save_dir=tmp_path / "runs")
    with pytest.raises(InputError, match="1 of these failed"):
        reproduce.main(config)
    assert f"data of mnist: there is no {tmp_path / 'data' / 'mnist'}" in capsys.readouterr().err


def test_data_that_are_generated_need_no_folder(tmp_path):
    site = commands.Site(tmp_path / "runs", tmp_path / "nowhere", False, False, "fp32", None, 1)
    plan, _ = TABLES["translation-table"].plans
    assert work.Chain((commands.Run("", plan, 0),), site).preparation() is None
    assert list(site.data("translation").iterdir()) == []


def test_data_of_another_place_are_not_taken_for_these(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "mnist").mkdir(parents=True)
        (tmp_path / name / "mnist" / "images.gz").write_text(name)
    site = commands.Site(tmp_path / "runs", tmp_path / "here", False, False, "fp32", None, 1)
    assert work.Preparation("mnist", (), site)() is None and work.Preparation("mnist", (), site)() is None
    message = work.Preparation("mnist", (), replace(site, data_dir=tmp_path / "there"))()
    assert (
        message == f"{site.data('mnist')} links to {tmp_path}/here/mnist, not to {tmp_path}/there/mnist: "
        "choose another --save-dir"
    )


def test_caches_beside_a_dataset_are_not_linked(tmp_path):
    """A script that finds a link in place of its lock, or of a cache that it has to write anew, refuses to run."""
    site = commands.Site(tmp_path / "runs", tmp_path / "data", False, False, "fp32", None, 1)
    source, folder = tmp_path / "data" / "celeba", site.data("celeba")
    source.mkdir(parents=True)
    names = ("list_attr_celeba.txt", "celeba_64.npy", "celeba_64.json", "celeba_64.lock", "attributes_of_faces.pt")
    for name in names:
        (source / name).write_text("in the data-dir")
    assert work.Preparation("celeba", (), site)() is None
    assert [path.name for path in folder.iterdir()] == ["list_attr_celeba.txt"]
    for name in names[1:]:
        (folder / name).write_text("the table's own")
    assert work.Preparation("celeba", (), site)() is None
    assert (folder / "celeba_64.npy").read_text() == "the table's own"


def test_tables_are_made_of_results_that_are_there(tmp_path, capsys):
    config = reproduce.Config("mvae-table2", tables_only=True, save_dir=tmp_path, results_dir=tmp_path)
    with pytest.raises(InputError, match="has no results of mvae-table2"):
        reproduce.main(config)
    (tmp_path / "mvae-table2").mkdir()
    (tmp_path / "mvae-table2" / "x.json").write_text(json.dumps(contents(loglike=loglike(-90.0))))
    assert reproduce.main(config) == [tmp_path / "mvae-table2.md", tmp_path / "report.html"]
    assert (tmp_path / "mvae-table2.md").read_text() in capsys.readouterr().out


def test_what_was_measured_by_size_is_drawn_beside_its_table(tmp_path):
    measured = contents("mvae", 0, "polymnist-table", "polymnist", analysis=POLYMNIST)
    (tmp_path / "polymnist-table").mkdir()
    (tmp_path / "polymnist-table" / "x.json").write_text(json.dumps(measured))
    *files, _ = reproduce.main(
        reproduce.Config("polymnist-table", tables_only=True, save_dir=tmp_path, results_dir=tmp_path)
    )
    assert [file.name.removeprefix("polymnist-table") for file in files] == [
        ".md",
        "_by_number.svg",
        "_by_distance.svg",
    ]
    assert files[1].read_text().startswith('<svg style="background: #fff; color: #1b1f24" ')


def test_figures_of_other_data_have_no_difference():
    coherence = {"estimates": means({"coherence, joint": 0.5})}
    runs = [
        result(model, 0, "mmvae-table", "mnist_svhn", coherence=coherence)
        for model in ("mmvae", "mmvae, synthetic SVHN")
    ]
    text = tables.markdown("mmvae-table", TABLES["mmvae-table"], runs)
    assert "| mmvae | joint | 42.1 | 50.0 | +7.9 | 0 |" in text
    assert "| mmvae, synthetic SVHN | joint | 42.1 | 50.0 |  | 0 |" in text


def test_distances_of_other_judges_stand_apart():
    def run(model, seed, accuracy, distance):
        by_size = {"1": {"coherence": 0.5, "FD": distance}}
        analysis = {"estimates": means({"classifier, m0": accuracy}), "by_size": by_size}
        return result(model, seed, "polymnist-table", "polymnist", analysis=analysis)

    runs = [run("mvae", 0, 0.97, 100.0), run("mvae", 1, 0.98, 300.0), run("mvtcae", 0, 0.98, 120.0)]
    table = TABLES["polymnist-table"]
    text = tables.markdown("polymnist-table", table, runs)
    assert re.search(r"\| mvae \| 50.0 ± 0.0 \|.* \| 100.000 / 300.000 \| A / B \| 0, 1 \|", text)
    assert re.search(r"\| mvtcae \| 50.0 \|.* \| 120.000 \| B \| 0 \|", text)
    assert tables.JUDGES in text
    by_number, by_distance = charts.by_size(runs).values()
    assert {">mvae, A<", ">mvae, B<", ">mvtcae, B<"} <= set(re.findall(">mv[^<]*<", by_distance[0]))
    assert ">mvae<" in by_number[0] and "judges, A, B" in by_distance[1]
    alike = [runs[1], run("mvae", 2, 0.98, 100.0)]
    text = tables.markdown("polymnist-table", table, alike)
    assert "200.000 ± 141.421" in text and "judges |" not in text and tables.JUDGES not in text
    assert "judges" not in charts.by_size(alike)["by_distance"][1]


def test_what_one_experiment_makes_of_a_dataset_stops_no_other_that_has_it():
    site = commands.Site(Path("runs"), Path("data"), False, False, "fp32", None, 1)
    runs = {plan.experiment: commands.Run("", plan, 0) for table in TABLES.values() for plan in table.plans}
    needed = [work.Chain((runs[experiment],), site).preparation for experiment in ("celeba", "celeba19", "vision")]
    assert [each.name for each in needed] == ["data of celeba", "data of celeba", "data of celeba by vision.setup"]
    assert needed[0] == needed[1]


def test_a_run_without_a_figure_of_its_table_is_reported_too(tmp_path):
    run = result("dmvae", 0, "polymnist-table", "polymnist", analysis={"estimates": means({"classifier, m0": 0.9})})
    report.write(tmp_path / "report.html", [run])
    assert "polymnist, dmvae, seed 0" in (tmp_path / "report.html").read_text()
    assert "|---|" not in tables.markdown("polymnist-table", TABLES["polymnist-table"], [run])


def test_a_report_has_the_pictures_of_the_first_seed(tmp_path):
    for seed in (0, 1):
        samples = tmp_path / "mvae-table2" / "mnist" / f"mvae_seed{seed}" / "samples"
        samples.mkdir(parents=True)
        for file in (samples.parent / "loss.png", samples / "conditional.png"):
            file.touch()
    measured = result("mvae", 0, "polymnist-table", "polymnist", analysis=POLYMNIST)
    report.write(tmp_path / "report.html", [*(result(seed=s, loglike=loglike(-90.0)) for s in range(2)), measured])
    text = (tmp_path / "report.html").read_text()
    folder = "mvae-table2/mnist/mvae_seed0"
    assert re.findall('src="(.*?)"', text) == [f"{folder}/loss.png", f"{folder}/samples/conditional.png"]
    assert 'alt="mnist, mvae, seed 0: conditional"' in text and text.count("<svg ") == 2
    assert "<td>-90.000 ± 0.000</td>" in text and "python -m mnist.train" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "demo"),
    [
        pytest.param(plan, demo, id=f"{plan.name}-{'demo' if demo else 'full'}")
        for table in TABLES.values()
        for plan in table.plans
        for demo in ([False, True] if plan.demo else [False])
    ],
)
def test_the_scripts_know_the_options_of_the_plans(plan, demo, tmp_path):
    run, site = commands.Run("table", plan, 0), commands.Site(tmp_path, tmp_path, demo, False, "fp32", None, 1)
    folder = site.folder(run)
    folder.mkdir(parents=True)
    train = commands.training_command(run, None, site, epochs=2, annealing=1, save_dir=folder)
    for _, _, name, *args in (train, *commands.measure_commands(run, site).values()):
        module = importlib.import_module(name)
        tyro.cli(getattr(module, "Config", None) or module.Command, args=args).check()


def test_what_a_table_says_of_runs_that_differ():
    runs = [result(seed=s, given=g, loglike=loglike(-90.0)) for s, g in ((0, 80), (1, 40))]
    runs[0].date, runs[1].date, runs[1].examples = "2026-11-20", "2026-11-22", 10_000
    runs[1].epochs.planned, runs[1].seconds, runs[1].device = 60, 40.0, "a(R) GPU Processor"
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], runs)
    assert "| 0, 1 | 40 to 80 of 80 | 10,000 to 50,000 | 0.01 to 0.03 | a CPU / a GPU | 2026-11-22 | 0123456+ |" in text


def test_the_error_of_a_difference_in_percent():
    figure = Figure("share", ("loglike", "estimates", "x", "mean"), percent=True)
    plan = Plan("mnist", "mvae", Setting(1, 0), None, (), {"share": Published(40.0)}, other_test_images=True)
    run = result(loglike={"estimates": {"x": {"mean": 0.5, "stderr": 0.02}}})
    row = tables.Row(plan, figure, plan.published["share"], (0.5,), (), (run,))
    assert tables.difference(row, [row]) == "+10.0 ± 2.0"
