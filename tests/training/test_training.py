import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

from common.checkpoints import BEST, LAST, load
from common.data import Examples
from common.data.splits import unpair
from common.errors import InputError
from common.likelihoods import BernoulliLikelihood
from common.objectives import MvaeElbo, Objective, StandardElbo
from mnist import train as mnist_train
from mnist.data import binarised_anew
from mnist.data import load as load_mnist
from tests.helpers.data_config import data_config
from tests.helpers.linear_gaussian import draw, linear_gaussian
from tests.helpers.runs import assert_same_run, config, metrics
from tests.helpers.scripts import ROOT, run_script
from training import experiment, run
from training import loop as training
from training.loop import Meter
from training.steps import Step
from vhe.framework.support_sets import SupportSets

import pytest
import torch


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("uninterrupted")
    mnist_train.main(config(save_dir))
    return save_dir


@pytest.mark.slow
def test_resumed_after_kill_9_is_as_if_never_stopped(tmp_path, uninterrupted):
    options = ["--demo", "--limit=300", "--epochs=5", "--annealing-epochs=3", "--batch-size=50", "--n-latents=8"]
    command = [sys.executable, "train.py", *options, f"--save-dir={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT / "mnist", stdout=subprocess.DEVNULL)
    while not (tmp_path / LAST).exists() or len(metrics(tmp_path)) < 2:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 5, "tr')  # a line that the kill cut in two
    assert load(tmp_path / LAST)["epoch"] < 5
    mnist_train.main(config(tmp_path, resume=True))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_ctrl_c_saves_the_very_batch(tmp_path, uninterrupted, monkeypatch):
    def annealed(at, total, original=training.annealed):
        if at == 8:
            signal.raise_signal(signal.SIGINT)
        return original(at, total)

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    with monkeypatch.context() as patch:
        patch.setattr(training, "annealed", annealed)
        with pytest.raises(KeyboardInterrupt):
            mnist_train.main(config(tmp_path))
    checkpoint = load(tmp_path / LAST)
    assert (checkpoint["epoch"], checkpoint["batch"]) == (1, 4)
    mnist_train.main(config(tmp_path, resume=True))
    assert_same_run(tmp_path, uninterrupted)
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert seconds == [1, 2, 1, 1, 1], "the second epoch was trained in two parts"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is put back"


def test_the_batches_of_all_epochs_anneal(tmp_path, monkeypatch):
    steps, annealed = [], training.annealed
    monkeypatch.setattr(training, "annealed", lambda at, total: steps.append((at, total)) or annealed(at, total))
    mnist_train.main(config(tmp_path, limit=100, batch_size=30, epochs=3, annealing_epochs=2))
    assert steps == [(step, 6) for step in range(9)], "84 images are three batches"
    assert [line["beta"] for line in metrics(tmp_path)] == [0.5, 1.0, 1.0], "that of the epoch's last batch"


def test_the_model_is_chosen_by_the_bound_that_is_trained(tmp_path):
    mnist_train.main(config(tmp_path, limit=60, valid=20, epochs=1, beta=0.25, annealing_epochs=0))
    line = metrics(tmp_path)[0]["valid"]
    terms = [value * (-0.25 if name.endswith("/kl") else 1) for name, value in line.items() if "/" in name]
    assert line["bound"] == pytest.approx(sum(terms), rel=1e-5)


def test_the_loss_is_read_at_intervals_or_at_the_end_of_an_epoch_alone(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(training, "show_means", lambda bar, *_: shown.append(bar.disable))
    for interval, expected in ((2, [False] * 3), (0, [True])):
        mnist_train.main(config(tmp_path / str(interval), epochs=1, log_interval=interval))
        assert shown == expected
        shown.clear()


def test_too_few_examples_to_hold_any_out_are_noticed(tmp_path, capsys):
    mnist_train.main(config(tmp_path, epochs=1, limit=1))
    assert "warning: too few examples to hold any out" in capsys.readouterr().err


def test_early_stopping(tmp_path, monkeypatch):
    scores = iter([-3.0, -1.0, -2.0, -1.5, -0.5])
    monkeypatch.setattr(training, "validation_means", lambda *_: {"bound": next(scores)})
    monkeypatch.setattr(training.Trainer, "_draw", lambda *_: None)
    mnist_train.main(config(tmp_path, patience=2, epochs=50))
    checkpoint = load(tmp_path / LAST)
    assert (checkpoint["epoch"], checkpoint["best_epoch"], checkpoint["best"]) == (4, 2, -1.0)
    mnist_train.main(config(tmp_path, patience=3, epochs=5, resume=True))
    assert load(tmp_path / LAST)["best_epoch"] == 5, "more patience goes on"


def test_the_validation_examples_are_evaluated_at_intervals(tmp_path, monkeypatch):
    scores = iter([-1.0, -3.0])
    monkeypatch.setattr(training, "validation_means", lambda *_: {"bound": next(scores)})
    monkeypatch.setattr(training.Trainer, "_draw", lambda *_: None)
    mnist_train.main(config(tmp_path, limit=100, eval_interval=2, epochs=3))
    assert [line["epoch"] for line in metrics(tmp_path) if "valid" in line] == [2, 3], "and after the last"
    best = load(tmp_path / BEST)
    assert (best["epoch"], best["best"]) == (2, -1.0) and load(tmp_path / LAST)["epoch"] == 3


def test_long_gradients_are_scaled_down():
    model, weights, scales = linear_gaussian(2)
    objective, examples = StandardElbo(model), Examples(draw(weights, scales, 20))
    start = deepcopy(objective.state_dict())
    moved = []
    for max_grad_norm in (None, 0.1, 1e9):
        objective.load_state_dict(start)
        torch.manual_seed(0)
        step = Step(objective, torch.optim.SGD(objective.parameters(), lr=1.0, fused=True), max_grad_norm)
        step(examples, torch.arange(20), 20, 1.0)
        moved.append(torch.cat([(p.detach() - start[name]).flatten() for name, p in objective.named_parameters()]))
    assert moved[0].norm() > 0.2 and moved[2].equal(moved[0])
    torch.testing.assert_close(moved[1], 0.1 * moved[0] / moved[0].norm(), rtol=1e-4, atol=1e-8)


def test_a_loss_that_is_not_finite_stops_with_its_terms(tmp_path, monkeypatch):
    mnist_train.main(config(tmp_path, epochs=1))
    before = load(tmp_path / LAST)

    def poison(at, total):
        return float("nan") if at == 7 else 1.0

    monkeypatch.setattr(training, "annealed", poison)
    terms = r"not finite at epoch 2, batch 5.*: bound = nan, .*checkpoints so far are kept[^\n]*$"
    with pytest.raises(InputError, match=terms):
        mnist_train.main(config(tmp_path, epochs=3, resume=True))
    after = load(tmp_path / LAST)
    assert after["epoch"] == 1
    assert all(after["state_dict"][k].equal(before["state_dict"][k]) for k in before["state_dict"])


def test_the_culprit_among_the_terms_is_named(tmp_path):
    with pytest.raises(InputError, match=r"not finite at epoch .*(image|joint)/(image|kl) = (-?inf|nan)"):
        mnist_train.main(config(tmp_path, lr=1e20))


def test_a_resumed_run_may_lack_newer_options(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    about = json.loads((tmp_path / "config.json").read_text())
    for name in ("looser", "valid", "optimizer"):
        about["config"].pop(name)
    (tmp_path / "config.json").write_text(json.dumps(about))
    mnist_train.main(config(tmp_path, epochs=6, resume=True))
    assert metrics(tmp_path)[:5] == metrics(uninterrupted) and load(tmp_path / LAST)["epoch"] == 6


def test_weak_supervision_uses_the_unpaired(tmp_path, monkeypatch):
    """With one label in ten paired, training still sees every image, and the terms say what was scored."""
    drawn = []
    monkeypatch.setattr(experiment, "unpair", lambda *args: drawn.append(args[1:3]) or unpair(*args))
    mnist_train.main(config(tmp_path, paired_fraction=0.1, epochs=1, seed=3))
    assert drawn == [(0.1, 3)], "--seed decides which examples stay paired"
    checkpoint = load(tmp_path / LAST)
    terms = metrics(tmp_path)[0]["train"]
    assert checkpoint["epoch"] == 1
    assert terms["joint/image"] / terms["image/image"] == pytest.approx(1, rel=0.1), "as many joint terms as others"
    whole = tmp_path / "whole"
    mnist_train.main(config(whole, epochs=1, seed=3))
    of_whole = metrics(whole)[0]["train"]
    assert terms["bound"] == pytest.approx(of_whole["bound"], rel=0.15), "a mean over examples"
    assert terms["joint/kl"] != of_whole["joint/kl"], "of other examples"
    steps = checkpoint["optimizer"]["state"][0]["step"].item()
    assert steps == 5, "a batch has the terms of as many whole examples"


def test_separate_runs_of_one_seed_agree_and_of_another_do_not(tmp_path, uninterrupted):
    mnist_train.main(replace(config(tmp_path / "a"), experiment="named"))
    assert_same_run(tmp_path / "a" / "named", uninterrupted)
    mnist_train.main(config(tmp_path / "b", seed=1, epochs=1))
    assert metrics(tmp_path / "b")[0] != metrics(uninterrupted)[0]


def test_callbacks_follow_a_run_and_leave_it_as_it_is(tmp_path, uninterrupted):
    seen = []

    def callback(opened, line):
        torch.rand(7)
        seen.append((opened.dir, line, load(opened.dir / LAST)["epoch"]))

    run(config(tmp_path), mnist_train.experiment(), callbacks=[callback])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert seen == [(tmp_path, line, line["epoch"]) for line in lines], "once an epoch, with its checkpoint saved"
    assert_same_run(tmp_path, uninterrupted)


def test_frozen_parts_stay_frozen_and_the_rest_trains(tmp_path):
    """Also after validation, and after a callback, in which all is in evaluation mode."""
    modes, seen = {}, []

    def build(config):
        model = mnist_train.build(config)
        model.encoder["image"].eval()
        modes["model"] = model
        return model

    def callback(opened, line):
        seen.append(any(module.training for module in modes["model"].modules()))
        raise RuntimeError("a mistake of the callback's")

    experiment = mnist_train.experiment()._replace(build=build)
    with pytest.raises(RuntimeError, match="mistake"):
        run(config(tmp_path, epochs=1), experiment, callbacks=[callback])
    model = modes["model"]
    assert seen == [False] and model.training and model.encoder["text"].training
    assert not any(module.training for module in model.encoder["image"].modules())


def test_exit_codes(capsys):
    def fails(error):
        def main(_):
            raise error

        with pytest.raises(SystemExit) as exit_:
            run_script(mnist_train, ["--demo"], main)
        return exit_.value.code

    assert fails(InputError("the thing, and the way out")) == 2
    assert capsys.readouterr().err == "error: the thing, and the way out\n"
    for error, told in (
        (ModuleNotFoundError("No module named 'importlib.readers'"), "the installation is incomplete or unreadable"),
        (MemoryError("Unable to allocate 4 PiB"), r"memory ran out (Unable to allocate 4 PiB): give a smaller --limit"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "memory ran out"),
    ):
        assert fails(error) == 2
        message = capsys.readouterr().err
        assert told in message and message.startswith("error: ") and message.count("\n") == 1
    with pytest.raises(RuntimeError, match="mistake"):
        fails(RuntimeError("a mistake of ours"))
    assert fails(KeyboardInterrupt()) == 130


def test_the_smallest_values_are_allowed(tmp_path):
    config(tmp_path, beta=0.0, seed=2**32 - 1, annealing_epochs=0, paired_fraction=1.0, lambda_text=0.0).check()
    config(tmp_path, valid=1, patience=1, epochs=1, batch_size=1, n_latents=1).check()


def pairs_of(image=None, text=None, mask=None, **others):
    image, text = torch.rand(60, 1, 28, 28) if image is None else image, torch.arange(60) % 10 if text is None else text
    return Examples({"image": image, "text": text, **others}, mask=mask)


IMAGES, TEXTS, ALL = torch.rand(60, 1, 28, 28), torch.arange(60) % 10, torch.ones(60, 2, dtype=torch.bool)
ABSENT = torch.full((60, 1, 28, 28), torch.nan)
UNUSABLE = [  # what `load` returns, and what is said of it
    ({}, "load.* must return Examples, not dict"),
    (Examples({"Image": IMAGES, "text": TEXTS}), r"name image, which the data lack \(they have Image, text\)"),
    (Examples({"text": TEXTS, "image": IMAGES}, mask=ALL), "a mask's columns are image, text, as .* have text, image"),
    (pairs_of(mask=torch.ones(60, 3).bool()), r"a mask needs 2 columns, .* for image, text; its shape is .50, 3."),
    (pairs_of(ABSENT), "no example has image: NaN, -1, and False in"),
    (pairs_of(text=torch.full((60,), -1)), "no example has text"),
    (pairs_of(torch.full((60, 1, 28, 28), -torch.inf)), "image has infinity in 50 of 50 examples: NaN says"),
    (pairs_of(text=TEXTS + 1), "text has a class above 9 in 5 of 50 examples: its decoder gives the classes 0 to 9"),
    (pairs_of(IMAGES.double()), "image is torch.float64, and the model torch.float32"),
    (pairs_of(255 * IMAGES), r"image has values outside \[0, 1\] in 50 of 50 examples"),
    (pairs_of(text=TEXTS / 10), "text is torch.float32, which is no class: convert it with"),
]


@pytest.mark.parametrize(("data", "message"), UNUSABLE)
def test_data_that_the_model_cannot_take_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        run(config(tmp_path), mnist_train.experiment()._replace(load=lambda *_: data))


def test_a_likelihood_of_other_dimensions_than_an_example_is_refused(tmp_path):
    mnist = mnist_train.experiment()

    def build(options):
        model = mnist.build(options)
        model.likelihood["image"] = BernoulliLikelihood(2)
        return model

    message = "log-density of image must be one number for each example, which has 3 dimensions: .* event_dims=3"
    with pytest.raises(InputError, match=message):
        run(config(tmp_path), mnist._replace(build=build, load=lambda *_: pairs_of()))


def test_absent_values_are_free_and_a_masks_data_may_hold_more(tmp_path):
    mnist, options = mnist_train.experiment(), config(tmp_path)
    data = pairs_of(ABSENT, mask=torch.tensor([False, True]).expand(60, 2), id=torch.arange(60))
    kept = mnist.examples(options, data, mnist.build(options))
    assert set(kept.modalities) == {"image", "text"} and not kept.mask[:, 0].any() and kept.mask[:, 1].all()


def test_more_processes_than_examples_are_refused(tmp_path, monkeypatch):
    """A sixth of the 300 examples is held out, and these are shared too."""
    monkeypatch.setattr(training.processes, "world_size", lambda: 60)
    message = "60 processes cannot share 50 examples: start at most 50, or raise --batch-size, --valid or --limit"
    with pytest.raises(InputError, match=message):
        mnist_train.main(config(tmp_path, batch_size=100))


def test_each_epoch_has_an_order_of_its_own(tmp_path, monkeypatch):
    orders = []

    def call(self, examples, own, n, beta, original=Step.__call__):
        orders.append(own)
        return original(self, examples, own, n, beta)

    monkeypatch.setattr(Step, "__call__", call)
    mnist_train.main(config(tmp_path, epochs=2))
    first, second = torch.cat(orders).split(250)
    assert not first.equal(second)
    assert first.sort().values.equal(torch.arange(250))
    assert second.sort().values.equal(torch.arange(250))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The last step's loss was fine; what it did to the weights was not."""
    with pytest.raises(InputError, match=r"weights are not finite at epoch 1: .*in another --save-dir"):
        mnist_train.main(config(tmp_path, lr=1e38, valid=0, batch_size=300, epochs=1))
    assert not (tmp_path / LAST).exists()


def test_a_model_that_lies_in_the_save_dir_is_not_overwritten(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / BEST)
    before = (tmp_path / BEST).read_bytes()
    for resume in (False, True):
        with pytest.raises(InputError, match="holds model_best.pth.tar without config.json"):
            mnist_train.main(config(tmp_path, resume=resume))
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "mnist", "config": {}}))
    with pytest.raises(InputError, match="holds a run already"):
        mnist_train.main(config(tmp_path))
    assert (tmp_path / BEST).read_bytes() == before


def test_a_run_that_was_killed_between_the_files_of_its_first_epoch_begins_anew(tmp_path, uninterrupted):
    mnist_train.main(config(tmp_path, epochs=1))
    (tmp_path / LAST).unlink()
    with pytest.raises(InputError, match="holds a run already"):
        mnist_train.main(config(tmp_path))
    mnist_train.main(config(tmp_path, resume=True))
    expected, found = (load(folder / BEST)["state_dict"] for folder in (uninterrupted, tmp_path))
    assert all(found[key].equal(x) for key, x in expected.items())


def test_resuming_remembers_what_came_before(tmp_path):
    for epochs in (1, 2, 3):
        mnist_train.main(config(tmp_path, epochs=epochs, resume=True))
    about = json.loads((tmp_path / "config.json").read_text())
    assert len(about["resumed_from"]) == 2
    assert {"command", "started", "commit"} == set(about["resumed_from"][0])


def test_resuming_on_other_data(tmp_path):
    mnist_train.main(config(tmp_path, epochs=1))
    smaller = load_mnist("train", data_config("", demo=True, limit=200))
    with pytest.raises(InputError, match="had 250 training examples, now there are 167: check --data-dir"):
        run(config(tmp_path, resume=True), mnist_train.experiment()._replace(load=lambda *_: smaller))


def test_the_meter_adds_up_random_subsets_by_name():
    model, weights, scales = linear_gaussian(4)
    objective, meter = MvaeElbo(model, K=1), Meter()
    sums, n = {}, 0
    for size in (3, 5, 2, 4, 6):
        bound = objective.bound(draw(weights, scales, size))
        meter.add(bound, size)
        n += size
        for name, values in {"bound": bound.value, **bound.terms}.items():
            sums[name] = sums.get(name, 0.0) + values.sum().item()
    assert meter.means("") == pytest.approx({name: value / n for name, value in sums.items()})


def test_what_is_known_of_the_examples_stays_known():
    mask = torch.ones(4, 1, dtype=torch.bool)
    images = Examples({"image": torch.rand(4, 1, 28, 28)}, mask=mask, incomplete=("image",))
    drawn = binarised_anew(images)
    assert drawn.incomplete == ("image",) and drawn.mask is mask
    assert not Step(Objective(torch.nn.Linear(1, 1)), None).capturable(SupportSets.__new__(SupportSets))


def test_steps_that_differ_from_batch_to_batch_are_not_captured():
    model = linear_gaussian(3)[0]
    whole = Examples({name: torch.zeros(4, 3) for name in ("a", "b", "c")}, incomplete=())
    partly = replace(whole, mask=torch.ones(4, 3, dtype=torch.bool))

    def capturable(objective, examples):
        return Step(objective, torch.optim.Adam(objective.parameters())).capturable(examples)

    assert capturable(MvaeElbo(model), whole) and capturable(MvaeElbo(model), partly)
    assert not capturable(MvaeElbo(model), replace(whole, incomplete=None)), (
        "each batch is looked at for missing values"
    )
    model.encoder["a"] = torch.nn.Sequential(torch.nn.BatchNorm1d(3), model.encoder["a"])
    assert capturable(MvaeElbo(model), whole)
    assert not capturable(MvaeElbo(model), partly), "its statistics would count what is absent"


@pytest.mark.parametrize(("name", "value"), [("precision", "fp16"), ("lr", None), ("track", ("board",))])
def test_choices_are_checked_in_python_too(tmp_path, name, value):
    with pytest.raises(InputError, match=f"the config has (no )?--{name}.*: give another value"):
        mnist_train.main(config(tmp_path, **{name: value}))


def test_a_copied_folder_that_trains_the_original_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "mydata"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder / "train.py"), raising=False)
    with pytest.raises(InputError, match="train.py trains mnist, not mydata: write mydata for mnist in the files"):
        mnist_train.main(config(tmp_path))
