"""--config, --resume, --settings and --demo: where the defaults come from."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import celeba.train
import celeba19.train
import cub.train
import fashionmnist.train
import mnist_svhn.train
import multimnist.train
import polymnist.train
import translation.train
import vhe.train
import vision.train
from cub import features
from mnist import halves
from mnist import train as mnist_train
from tests.helpers.runs import SMALL, assert_same_run, config, metrics
from tools.reproduction.plans import TABLES
from training import run_from_command_line
from training.command_line import parse
from training.options import as_json


def call(script, *args):
    run_from_command_line(script.main, script.Config, "", list(map(str, args)))


def parsed(config, *args):
    """The config that a script's main gets."""
    seen = []
    run_from_command_line(seen.append, config, "", list(map(str, args)))
    return seen[0]


def written(path, experiment, /, **options):
    path.write_text(json.dumps({"experiment": experiment, "config": options}))
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    options = {"lr": 2e-3, "seed": 3, "model": "mopoe", "K": 2, "looser": False, "obj": "iwae", "limit": 100}
    mnist_train.main(config(folder / "named", **options))
    return folder / "named"


@pytest.mark.slow
def test_the_same_run_again(old, tmp_path):
    call(mnist_train, "--config", old / "config.json", "--save-dir", tmp_path)
    assert_same_run(tmp_path, old)
    first, second = (json.loads((folder / "config.json").read_text())["config"] for folder in (old, tmp_path))
    places = {"save_dir": str(tmp_path), "config": str(old / "config.json")}
    assert second == first | places


def test_options_given_win_over_the_file(old, tmp_path):
    given = parsed(mnist_train.Config, "--config", old / "config.json", "--lr", 0.1, "--no-demo", "--epochs", 1)
    assert (given.lr, given.demo, given.epochs) == (0.1, False, 1)
    assert (given.seed, given.model, given.K, given.looser, given.limit) == (3, "mopoe", 2, False, 100)
    assert given.save_dir == Path("trained_models"), "the old run's stays its own"


def test_another_objective_does_not_take_the_first_ones_options(old):
    given = parsed(mnist_train.Config, "--config", old / "config.json", "--obj", "elbo")
    assert (given.obj, given.K, bool(given.looser)) == ("elbo", None, True)


def test_paths_and_the_weights_that_a_run_started_from_are_taken_over(tmp_path):
    file = written(tmp_path / "x.json", "mnist", data_dir="/there", pre_trained="/weights", cuda=True, n_latents=5)
    given = parsed(mnist_train.Config, "--config", file)
    assert (given.data_dir, given.pre_trained, given.cuda) == (Path("/there"), Path("/weights"), True)
    assert given.n_latents == 5 and given.batch_size == mnist_train.Config().batch_size, "others keep their defaults"


@pytest.mark.slow
def test_a_resumed_run_may_name_the_file_again(old, tmp_path):
    args = "--config", old / "config.json", "--save-dir", tmp_path, "--resume", "--epochs"
    call(mnist_train, *args, 1)
    call(mnist_train, *args, SMALL["epochs"])
    assert metrics(tmp_path) == metrics(old)


@pytest.mark.slow
def test_a_resumed_run_keeps_its_options(old, tmp_path, capsys):
    args = "--config", old / "config.json", "--save-dir", tmp_path, "--epochs"
    call(mnist_train, *args, 4)
    call(mnist_train, "--save-dir", tmp_path, "--resume", "--epochs", SMALL["epochs"])
    assert metrics(tmp_path) == metrics(old)
    with pytest.raises(SystemExit):
        call(mnist_train, "--save-dir", tmp_path, "--resume", "--lr", 0.1)
    assert "was run with --lr 0.002, not --lr 0.1: --resume needs the same" in capsys.readouterr().err


def test_a_run_is_not_resumed_with_the_papers_settings(old, capsys):
    with pytest.raises(SystemExit):
        call(mnist_train, "--save-dir", old.parent, "--experiment", old.name, "--resume", "--settings", "paper")
    assert "--resume needs the same" in capsys.readouterr().err


@pytest.mark.slow
def test_more_epochs_of_a_resumed_run_leave_its_annealing(tmp_path):
    assert (mnist_train.Config(epochs=8).annealing_epochs, mnist_train.Config(epochs=1).annealing_epochs) == (3, 1)
    args = "--demo", "--limit", 100, "--n-latents", 4, "--lr-schedule", "constant", "--save-dir", tmp_path, "--epochs"
    call(mnist_train, *args, 3)
    call(mnist_train, *args, 6, "--resume")
    assert [line["beta"] for line in metrics(tmp_path)] == [1.0] * 6
    assert json.loads((tmp_path / "config.json").read_text())["config"]["annealing_epochs"] == 1


# epochs, annealing, batch size, learning rate, latents: the authors' train.py; weight: the commands of their READMEs
PAPER = {
    mnist_train: (500, 200, 100, 1e-3, 64, {"lambda_text": 50}),
    fashionmnist.train: (500, 200, 100, 1e-3, 64, {"lambda_text": 50}),
    multimnist.train: (500, 200, 100, 1e-3, 64, {"lambda_text": 10}),
    celeba.train: (100, 20, 100, 1e-4, 100, {"lambda_attrs": 10}),
    celeba19.train: (100, 20, 100, 1e-4, 100, {"lambda_attrs": 10, "approx_m": 1}),
    vision.train: (100, 20, 50, 1e-4, 250, {"lambda_image": 1, "lambda_mask": 1}),
    mnist_svhn.train: (30, 0, 128, 1e-3, 20, {"K": None, "obj": "dreg"}),  # its objective's default is the paper's 30
    cub.train: (200, 0, 64, 1e-3, 128, {"K": 50, "obj": "dreg"}),
    polymnist.train: (300, 0, 256, 5e-4, 512, {"beta": 2.5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", PAPER, ids=lambda script: script.__name__)
def test_the_papers_settings_are_one_flag(script):
    given = parsed(script.Config, "--settings", "paper")
    *found, more = PAPER[script]
    assert [given.epochs, given.annealing_epochs, given.batch_size, given.lr, given.n_latents] == found
    assert {name: getattr(given, name) for name in more} == more
    assert parsed(script.Config, "--settings", "paper", "--epochs", 7).epochs == 7


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (vhe.train, (), "--settings paper: no paper has settings for this script, leave it out"),
        (mnist_train, ("--demo",), "--settings paper and --demo set the same defaults: leave one out"),
        (mnist_train, ("--config", "x"), "--settings paper and --config set the same defaults: leave one out"),
    ],
)
def test_settings_that_are_refused(script, args, message, capsys):
    with pytest.raises(SystemExit):
        parsed(script.Config, "--settings", "paper", *args)
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.slow
@pytest.mark.parametrize("script", [*list(PAPER)[:6], mnist_svhn.train, cub.train, translation.train])
def test_the_defaults_are_the_settings_of_the_results(script):
    model = {cub.train: "images", mnist_svhn.train: "mmvae", translation.train: "mvae, lambda 5"}.get(script, "mvae")
    plans = [plan for table in TABLES.values() for plan in table.plans if plan.train == "train"]
    (plan,) = (plan for plan in plans if (f"{plan.experiment}.train", plan.model) == (script.__name__, model))
    epochs, annealing, options = plan.full
    given = parsed(script.Config, *options.split(), "--epochs", epochs, "--annealing-epochs", annealing)
    assert given == parsed(script.Config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(plan, id=plan.name)
        for table in TABLES.values()
        for plan in table.plans
        if plan.demo and not plan.train.endswith("weak_supervision") and not plan.starts_from
    ],
)
def test_reproduce_trains_demos_with_their_defaults(plan):
    module = importlib.import_module(f"{plan.experiment}.{plan.train.split()[0]}")  # a subcommand may follow
    config = module.Train if plan.train.endswith(" train") else module.Config
    given = parsed(config, "--demo", *plan.demo.options.split())
    assert (given.epochs, given.annealing_epochs) == (plan.demo.epochs, plan.demo.annealing)


@pytest.mark.slow
@pytest.mark.parametrize("script", [*PAPER, vhe.train])
def test_the_demo_has_its_own_defaults(script):
    given, demo = parsed(script.Config, "--demo"), script.Config.DEMO
    assert demo and {name: getattr(given, name) for name in demo} == demo
    assert parsed(script.Config, "--demo", "--epochs", 7).epochs == 7


def test_other_epochs_have_their_own_annealing():
    assert parsed(multimnist.train.Config, "--demo").annealing_epochs == 10
    assert parsed(multimnist.train.Config, "--demo", "--epochs", 5).annealing_epochs == 1
    assert parsed(mnist_train.Config, "--settings", "paper", "--epochs", 40).annealing_epochs == 15
    assert parsed(mnist_train.Config, "--settings", "paper", "--epochs", 80).annealing_epochs == 30
    assert parsed(mnist_train.Config, "--settings", "paper").annealing_epochs == 200


def test_the_demos_importance_samples_are_for_its_objective_alone():
    assert mnist_svhn.train.Config.DEMO["K"] == parsed(mnist_svhn.train.Config, "--demo").K
    assert parsed(mnist_svhn.train.Config, "--demo", "--model", "mvae").K is None


def test_another_model_does_not_take_the_first_ones_objective(tmp_path):
    laplace = {"prior_and_posterior": "laplace", "learn_prior": True}
    file = written(tmp_path / "x.json", "mnist_svhn", model="mmvae", obj="iwae", K=4, n_latents=5, **laplace)
    given = parsed(mnist_svhn.train.Config, "--config", file, "--model", "mvae")
    assert (given.obj, given.prior_and_posterior, given.K, given.n_latents) == ("mvae", "normal", None, 5)
    assert not parsed(mnist_svhn.train.Config, "--config", file, "--prior-and-posterior", "vmf").learn_prior
    file = written(tmp_path / "y.json", "mnist", model="jmvae", alpha=0.5)
    assert parsed(mnist_train.Config, "--config", file, "--model", "mvae").alpha is None
    file = written(tmp_path / "z.json", "celeba19", approx_m=1)
    assert parsed(celeba19.train.Config, "--config", file, "--fusion", "moe").approx_m == 0


@pytest.mark.parametrize(
    ("script", "first", "then"),
    [
        (polymnist.train, {"model": "mmvae+"}, {"model": "mvae"}),
        (polymnist.train, {"model": "mvae"}, {"model": "mmvae+"}),
        (mnist_svhn.train, {"model": "mmvae+"}, {"model": "mmvae"}),
        (mnist_svhn.train, {"max_memory": 2.0}, {"obj": "elbo"}),
        (cub.train, {"model": "images"}, {"model": "features"}),
        (cub.train, {"model": "images"}, {"model": "caption"}),
        (cub.train, {"obj": "mmjsd"}, {"obj": "dreg"}),
        (halves, {"posterior": "vmf", "n_vmfs": 4, "vmf_dim": 4}, {"vmf_dim": 3}),
        (mnist_train, {"epochs": 80}, {"epochs": 40}),
    ],
    ids=str,
)
def test_defaults_that_follow_from_changed_options_follow_them(tmp_path, script, first, then):
    config = halves.Train if script is halves else script.Config
    file = written(tmp_path / "config.json", "any", **as_json(config(**first)))
    args = [x for name, value in then.items() for x in (f"--{name.replace('_', '-')}", value)]
    given = parsed(config, "--config", file, *args)
    given.check()
    kept = {name: value for name, value in first.items() if name not in ("max_memory", "obj", "model")}
    assert as_json(given) == as_json(config(**kept | then)) | {"config": str(file)}


def test_options_that_the_user_gave_stay_where_others_change(tmp_path):
    first = as_json(polymnist.train.Config(model="mmvae+", n_latents=7))
    file = written(tmp_path / "config.json", "polymnist", **first)
    assert parsed(polymnist.train.Config, "--config", file, "--model", "mvae").n_latents == 7
    file = written(tmp_path / "config.json", "mnist", **as_json(mnist_train.Config(epochs=80, annealing_epochs=7)))
    assert parsed(mnist_train.Config, "--config", file, "--epochs", 40).annealing_epochs == 7


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (mnist_svhn.train.Config, {"model": "dmvae"}),
        (mnist_svhn.train.Config, {"prior_and_posterior": "vmf", "looser": False, "learn_prior": False}),
        (polymnist.train.Config, {"model": "cmvae"}),
        (cub.train.Config, {"model": "features", "vocabulary": ["a", "b"], "images_dir": Path("there")}),
    ],
)
def test_every_kind_of_option_is_read_as_it_was_written(tmp_path, config, changes):
    first = config(**changes)
    again = parsed(config, "--config", written(tmp_path / "config.json", "any", **as_json(first)))
    assert as_json(again) == as_json(first) | {"config": str(tmp_path / "config.json")}
    assert {name: type(value) for name, value in vars(again).items() if name != "config"} == {
        name: type(value) for name, value in vars(first).items() if name != "config"
    }


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (
            mnist_train,
            ("--model", "dmvae"),
            "--model dmvae: this script has mvae, mvae-q, jmvae, jnf, vae, cvae, bivcca",
        ),
        (mnist_train, ("--model=dmvae",), "--model dmvae: this script has mvae, mvae-q"),
        (mnist_svhn.train, ("--svhn", "fake"), "--svhn fake: this script has real, synthetic"),
        (mnist_train, ("--track", "tensorbord"), "--track tensorbord: this script has tensorboard, wandb, mlflow"),
        (mnist_train, ("--obj", "dmvea"), "--obj dmvea: this script has jmvae, student, telbo, jnf, mvtcae"),
    ],
)
def test_values_that_are_none_of_the_choices_are_refused_in_one_line(script, args, message, capsys):
    with pytest.raises(SystemExit) as exit_code:
        run_from_command_line(script.main, script.Config, "", [*args])
    assert exit_code.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(("weights", "expected"), [("train", "train"), ("net.pth", Path("net.pth"))])
def test_an_option_of_choices_or_a_path_takes_both(weights, expected):
    assert parse(features.Config, args=["--weights", weights]).weights == expected


def test_a_script_of_several_commands(tmp_path):
    run_from_command_line(
        halves.main, halves.Command, "", ["train", "--demo", "--limit=40", "--epochs=1", f"--save-dir={tmp_path / 'a'}"]
    )
    run_from_command_line(
        halves.main,
        halves.Command,
        "",
        ["train", f"--config={tmp_path / 'a' / 'config.json'}", f"--save-dir={tmp_path / 'b'}"],
    )
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nowhere.json", "nowhere.json is missing: give the config.json of a run"),
        ("text.json", "text.json is damaged, JSON is malformed: invalid character (byte 0): give the config.json of a"),
        ("plain.json", "plain.json is damaged, Object missing required field `experiment`: give the config.json of a"),
        ("unknown.json", "unknown.json has options that this script lacks, lambda_attrs: give the file of a run of th"),
        ("mistyped.json", "mistyped.json was trained with --lr high, Expected `float`, got `str`: give the file of a "),
        ("number.json", "number.json was trained with --data-dir 3, "),
        ("choice.json", "choice.json was trained with --model mvae+, this script has mvae, mvae-q, "),
        ("value.json", "--lr must be positive, not -1.0"),
        ("large.json", "--batch-size 1000000000000 is too large: give a number below 4294967296"),
        ("other.json", "other.json belongs to a run of fashionmnist, not of mnist: use fashionmnist's train.py"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, capsys, file, message):
    (tmp_path / "text.json").write_text("lr = 1")
    (tmp_path / "plain.json").write_text('{"lr": 1}')
    written(tmp_path / "unknown.json", "celeba", lambda_attrs=1.0)
    written(tmp_path / "mistyped.json", "mnist", lr="high")
    written(tmp_path / "number.json", "mnist", data_dir=3)
    written(tmp_path / "choice.json", "mnist", model="mvae+")
    written(tmp_path / "value.json", "mnist", lr=-1.0)
    written(tmp_path / "large.json", "mnist", batch_size=10**12)
    written(tmp_path / "other.json", "fashionmnist", lr=1e-4)
    with pytest.raises(SystemExit) as exit_:
        call(mnist_train, "--config", tmp_path / file, "--save-dir", tmp_path / "new", "--demo")
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_save_dir_of_other_options_is_not_resumed(tmp_path, capsys):
    written(tmp_path / "config.json", "celeba", lambda_attrs=1.0)
    with pytest.raises(SystemExit):
        call(mnist_train, "--resume", "--save-dir", tmp_path, "--demo")
    assert "options that this script lacks, lambda_attrs: choose another --save-dir\n" in capsys.readouterr().err


def test_experiments_with_the_same_options_are_told_apart(old, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(fashionmnist.train, "--config", old / "config.json", "--save-dir", tmp_path / "new")
    assert "config.json belongs to a run of mnist, not of fashionmnist: use mnist's train.py" in capsys.readouterr().err


def test_a_script_does_not_run_another_checkouts_code(tmp_path, monkeypatch, capsys):
    """As in a second clone with the first one's .venv."""
    own = tmp_path / "training" / "command_line.py"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "mnist" / "train.py"), raising=False)
    with pytest.raises(SystemExit) as exit_:
        call(mnist_train, "--dry-run")
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert f"run make setup in {tmp_path} and its .venv/bin/python, or set PYTHONPATH={tmp_path}" in error
    own.unlink()  # a script of another project
    call(mnist_train, "--dry-run")
