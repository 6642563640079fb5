"""--config: a run with the options of another one."""

import json
from pathlib import Path

import pytest

import cub.train
import fashionmnist.train
import mnist_svhn.train
import polymnist.train
from common.training import run_from_command_line
from common.training.options import as_json
from mnist import halves
from mnist import train as mnist_train
from tests.helpers.runs import SMALL, assert_same_run, config, metrics


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


def test_a_resumed_run_may_name_the_file_again(old, tmp_path):
    args = "--config", old / "config.json", "--save-dir", tmp_path, "--resume", "--epochs"
    call(mnist_train, *args, 1)
    call(mnist_train, *args, SMALL["epochs"])
    assert metrics(tmp_path) == metrics(old)


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
        ("other.json", "other.json is of a run of fashionmnist, not of mnist: use fashionmnist's train.py"),
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


def test_experiments_with_the_same_options_are_told_apart(old, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(fashionmnist.train, "--config", old / "config.json", "--save-dir", tmp_path / "new")
    assert "config.json is of a run of mnist, not of fashionmnist: use mnist's train.py" in capsys.readouterr().err
