"""The command that makes the papers' tables anew."""

import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import reproduce
from common.errors import InputError
from tests.helpers.results import loglike, result
from tests.helpers.scripts import ROOT
from tools.reproduction import commands, tables, work
from tools.reproduction.commands import Failed, call
from tools.reproduction.plans import TABLES
from tools.reproduction.records import Figure, Measure, Plan, Setting, Table
from tools.reproduction.scheduler import Pool
from tools.reproduction.work import RESULT

import pytest
import tyro
from filelock import lock_descriptor
from msgspec.structs import replace as replace_fields


def test_a_table_has_the_papers_figures_beside_means_and_deviations_over_seeds():
    results = [result(seed=s, loglike=loglike(x)) for s, x in enumerate((-90.0, -91.0, -92.0))]
    table = TABLES["mvae-table2"]
    text = tables.markdown("mvae-table2", table, results)
    assert "| model | figure | paper | ours | difference | seeds | epochs | examples |" in text
    lines = [
        "log p(x) | -90.619 | -91.000 ± 1.000 | -0.381 ± 0.577 | 0, 1, 2 | 80 | 50,000 |",
        "log p(x,y) | -90.859 | -92.000 ± 1.000 | -1.141 ± 0.577 | 0, 1, 2 | 80 | 50,000 |",
        r"log p(x\|y) | -88.569 |  |  |  |  |  |",
    ]
    assert "".join(f"| mnist, mvae | {line}\n" for line in lines) in text
    assert "| fashionmnist, vae | log p(x) | -232.758 |  |  |  |  |  |" in text
    (header, lines), *_ = tables.grids(table, tables.rows("mvae-table2", table, results))
    of_report = [dict(zip(header, line, strict=True)) for line in lines]
    mnist = next(line for line in of_report if line["experiment"] == "mnist" and line["model"] == "mvae")
    assert mnist["ours, z from q(z|x,y)"] == "-91.500 ± 1.000" and mnist["device"] == "a CPU"
    assert tables.DIFFERENCE in text and "†" not in text


@pytest.mark.parametrize(("seeds", "error"), [(1, 3), (2, math.sqrt(3**2 + 1 / 4))])
def test_the_error_of_a_difference_counts_images_that_are_not_the_papers(seeds, error):
    estimates = [{"estimates": {"log p(image)": {"mean": -6300 - x, "stderr": 3}}} for x in range(seeds)]
    results = [result(seed=i, experiment="celeba", loglike=measured) for i, measured in enumerate(estimates)]
    text = tables.markdown("mvae-table2", TABLES["mvae-table2"], results)
    assert f"| {-6300 - (seeds - 1) / 2 + 6236.923:+.3f} ± {error:.3f} |" in text


def test_runs_that_were_trained_otherwise_are_not_averaged():
    options = ("--lr 1e-3 --epochs 3 --seed 0", "--lr 1e-3 --epochs 4 --seed 1", "--lr 1e-4 --seed 2")
    runs = [
        replace_fields(result(seed=s, loglike=loglike(-90.0)), commands=[f"python -m mnist.train {x}"])
        for s, x in enumerate(options)
    ]
    falling = replace_fields(result(seed=3, loglike=loglike(-90.0)), config={"lr_schedule": "cosine"})
    table = TABLES["mvae-table2"]
    assert tables.rows("mvae-table2", table, runs[:2])
    with pytest.raises(InputError, match="alike: .*--lr 1e-3 .* or .*--lr 1e-4 .*; move those"):
        tables.rows("mvae-table2", table, runs)
    with pytest.raises(InputError, match="alike: .*--lr-schedule constant or .*--lr-schedule cosine; move those"):
        tables.rows("mvae-table2", table, [replace_fields(runs[0], commands=falling.commands), falling])


def test_a_run_comes_after_that_which_it_starts_from():
    plans = [plan for plan in TABLES["vhe-table"].plans if plan.model == "pixelcnn, rescale"]
    ((first, second),) = reproduce.chains("vhe-table", plans, 7)
    assert (first.plan.model, second.plan.model, second.seed) == ("deconv, rescale", "pixelcnn, rescale", 7)
    assert len(reproduce.chains("vhe-table", TABLES["vhe-table"].plans, 0)) == 4


def test_parameters_of_the_cluster():
    given = ["all", "--cluster", "slurm", "--parameters", "timeout_min=60", "cpus_per_task=4", "slurm_partition=gpu"]
    config = tyro.cli(reproduce.Config, args=given)
    config.check()
    assert config.cluster_parameters() == {"timeout_min": 60, "cpus_per_task": 4, "slurm_partition": "gpu"}


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
    """The command holds the folder, even if the process that called it is killed."""
    code = "import sys; from pathlib import Path; from tools.reproduction.commands import call\n"
    code += f"call(['sh', '-c', 'echo $$ && exec sleep 60'], Path({str(tmp_path)!r}), 1)"
    log = tmp_path / "log.txt"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        while not log.exists() or log.read_text().count("\n") < 2:
            time.sleep(0.05)
        other.kill()
    with pytest.raises(Failed, match="another process is at work"):
        call(["true"], tmp_path, 1)
    os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)


TINY = "--limit 60 --batch-size 30"


@pytest.fixture
def table(monkeypatch):
    """Two trainings of seconds: one that fails, as soon as it starts."""
    measures = (Measure("loglike", "loglike", "", "--limit 5 --n-samples 2"),)
    fit = "tools.latent_prior {run} --kind maf --limit 60 --epochs 1"
    good, bad = (
        Plan("mnist", model, Setting(80, 30), Setting(4, 2, f"{TINY} {options}"), measures, then=(fit,), y="text")
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


def test_after_a_failed_measure_nothing_is_fitted_again_unless_the_model_is_new(tmp_path, monkeypatch):
    fits = tuple(f"tools.latent_prior {{run}} --kind {kind}" for kind in ("maf", "score"))
    measures = (Measure("loglike", "loglike", "", ""),)
    run = commands.Run("table", Plan("mnist", "mvae", Setting(2, 1), Setting(2, 1), measures, then=fits), 0)
    site, called = commands.Site(tmp_path, tmp_path, True, False, "fp32", None, 1), []

    def call(command, folder, threads):
        called.append(command[2])
        if command[2] == "mnist.train" and not (folder / work.BEST).exists():
            (folder / work.BEST).touch()
        if command[2] == "mnist.loglike":
            raise Failed("no memory")

    def again():
        called.clear()
        with pytest.raises(Failed, match="no memory"):
            work.train_and_measure(run, None, site)
        return called

    monkeypatch.setattr(work, "call", call)
    assert again() == ["mnist.train", "tools.latent_prior", "tools.latent_prior", "mnist.loglike"]
    assert again() == ["mnist.train", "mnist.loglike"]
    os.utime(site.folder(run) / work.BEST, (time.time() + 9,) * 2)
    assert again() == ["mnist.train", "tools.latent_prior", "tools.latent_prior", "mnist.loglike"]


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
    assert re.search(r"\| mnist, mvae \| -\d+\.\d{3} \| 3 \| 1 of 4 \| 50 \|", said.out)

    content = json.loads((folder / RESULT).read_text())
    assert content["config"]["annealing_epochs"] == 0 and content["config"]["seed"] == 3 and content["seconds"] > 0
    assert len(content["curves"]["train"]) == len(content["curves"]["valid"]) == 1
    assert content["commands"][0].endswith(
        "--seed 3 --resume --data-dir data/mnist --demo --save-dir mvae-table2/mnist/mvae_seed3"
    )
    fit, measure = content["commands"][1:]
    assert (folder / "latent_prior_maf.pt").exists() and "loglike mvae-table2/mnist/mvae_seed3 " in measure
    assert fit.startswith("python -m tools.latent_prior mvae-table2/mnist/mvae_seed3 --kind maf --limit 60 ")
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


def test_data_that_are_generated_need_no_folder(tmp_path):
    site = commands.Site(tmp_path / "runs", tmp_path / "nowhere", False, False, "fp32", None, 1)
    plan, _ = TABLES["translation-table"].plans
    assert work.Chain((commands.Run("", plan, 0),), site).preparation() is None
    assert list(site.data("translation").iterdir()) == []
    assert work.Preparation("mnist", (), site)().startswith(f"there is no {tmp_path / 'nowhere' / 'mnist'}: put")


def test_data_of_another_place_are_not_taken_for_these(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "mnist").mkdir(parents=True)
        (tmp_path / name / "mnist" / "images.gz").write_text(name)
    site = commands.Site(tmp_path / "runs", tmp_path / "here", False, False, "fp32", None, 1)
    assert work.Preparation("mnist", (), site)() is None and work.Preparation("mnist", (), site)() is None
    message = work.Preparation("mnist", (), replace(site, data_dir=tmp_path / "there"))()
    links = f"{site.data('mnist')} links to {tmp_path}/here/mnist, not to {tmp_path}/there/mnist"
    assert message == f"{links}: choose another --save-dir"


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


@pytest.mark.slow
@pytest.mark.parametrize("demo", [False, True])
def test_the_scripts_know_the_options_of_the_plans(demo, tmp_path):
    site = commands.Site(tmp_path, tmp_path, demo, False, "fp32", None, 1)
    for plan in (plan for table in TABLES.values() for plan in table.plans if plan.demo or not demo):
        run = commands.Run("table", plan, 0)
        folder = site.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        train = commands.training_command(run, None, site, epochs=2, annealing=1, save_dir=folder)
        following, measures = commands.following_commands(run, site), commands.measure_commands(run, site)
        for _, _, name, *args in (train, *following, *measures.values()):
            module = importlib.import_module(name)
            tyro.cli(getattr(module, "Config", None) or module.Command, args=args).check()
