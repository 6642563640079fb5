import json
import subprocess
from datetime import datetime
from types import SimpleNamespace

from reports import tables
from training import provenance as provenance_module
from training.provenance import provenance

import pytest
import torch


def test_means_and_standard_errors():
    x = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert tables.summarise({"x": x}) == {"x": pytest.approx({"mean": 3.0, "stderr": (14 / 3) ** 0.5 / 2})}


def test_one_example_or_one_group_has_no_error():
    x = torch.tensor([1.0, 2.0])
    estimates = tables.summarise({"x": x, "y": x[:1]}, torch.zeros(2, dtype=torch.long))
    assert estimates == {"x": {"mean": 1.5, "stderr": None}, "y": {"mean": 1.0, "stderr": None}}


def test_what_is_not_finite_is_null_in_the_json(tmp_path):
    config = SimpleNamespace(model=tmp_path / "run", json=tmp_path / "out.json")
    values = {"impossible": torch.tensor([-1.0, -torch.inf]), "none": torch.zeros(0)}
    table = tables.estimate_table(tables.summarise(values), ("name", "nats"), str)
    tables.report(config, "mnist", [table], {})
    undefined = {"mean": None, "stderr": None}
    assert json.loads(config.json.read_text())["estimates"] == {"impossible": undefined, "none": undefined}


def test_the_error_of_examples_in_groups_is_that_of_independent_groups():
    """Ten copies of each of four examples say no more than the four."""
    x, groups = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.arange(4).repeat_interleave(10)
    alone = tables.summarise({"x": x})["x"]
    found = tables.summarise({"x": x.repeat_interleave(10), "of each group": x}, groups)
    assert found == {"x": pytest.approx(alone), "of each group": pytest.approx(alone)}
    torch.manual_seed(0)
    sizes = torch.randint(1, 9, (4000,))
    groups, shared = torch.arange(4000).repeat_interleave(sizes), torch.randn(200, 4000)
    means = torch.stack([row.repeat_interleave(sizes).mean() for row in shared])
    errors = [tables.summarise({"x": row.repeat_interleave(sizes)}, groups)["x"]["stderr"] for row in shared[:9]]
    assert errors == pytest.approx([means.std().item()] * 9, rel=0.2), "of groups of unequal sizes, too"


def test_means_of_shares_leave_out_what_is_undefined():
    shares = {
        "bald": {"F1": 0.5, "recall": None},
        "male": {"F1": 0.25, "recall": None},
        "hat": {"F1": None, "recall": 1.0},
    }
    table = tables.attribute_table(shares, label="attribute")
    assert table.head == ("attribute, %", "F1", "recall") and table.figures == shares
    assert table.rows == [
        ("bald", "50.0", "-"),
        ("male", "25.0", "-"),
        ("hat", "-", "100.0"),
        ("mean", "37.5", "100.0"),
    ]
    assert tables.attribute_table({"bald": {"F1": None}}).rows[-1] == ("mean", "-")


def test_empty_tables_are_in_the_json_alone(tmp_path, capsys):
    config = SimpleNamespace(model=tmp_path / "run", json=tmp_path / "out.json")
    shown = [tables.Table("full", {"x": 1}, ("name",), [("x",)]), tables.Table("empty", {}, ("none",), [])]
    tables.report(config, "mnist", shown, {"n_examples": 3}, {"data": "demo"})
    assert capsys.readouterr().out == f"\n| name |\n|---|\n| x |\n\n{config.json}\n"
    about = {"experiment": "mnist", "data": "demo", "checkpoint": str(config.model), "split": "test", "n_examples": 3}
    about |= {"date": datetime.now().date().isoformat(), **provenance()}
    assert json.loads(config.json.read_text()) == about | {"full": {"x": 1}, "empty": {}}
    assert set(provenance()) == {"commit", "versions", "device", "threads"} and about["device"]


def test_the_commit_is_not_that_of_a_repository_around_this_one(tmp_path, monkeypatch):
    author = ("-c", "user.name=a", "-c", "user.email=a")
    for command in (("init", "-q"), (*author, "commit", "-q", "-m", "a", "--allow-empty")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "unpacked").mkdir()
    for root, has_one in ((tmp_path, True), (tmp_path / "unpacked", False)):
        monkeypatch.setattr(provenance_module, "__file__", str(root / "training" / "provenance.py"))
        assert bool(provenance_module.git_commit()) == has_one


@pytest.mark.parametrize(("trained", "scored", "said"), [(True, False, "with"), (False, True, "without")])
def test_scores_on_other_data_than_the_trainings_say_so(monkeypatch, capsys, trained, scored, said):
    values = {"log p(x)": torch.zeros(2)}
    config = {"model": None, "json": None, "seed": 0, "n_samples": 1, "tolerance": None}
    for of_training, note in ((trained, True), (scored, False)):
        monkeypatch.setattr(tables, "load_config", lambda path, demo=of_training: {"demo": demo})
        tables.report_estimates(values, SimpleNamespace(**config, demo=scored), "mnist", 2)
        assert (f"\n\nThe model was trained {said} --demo.\n" in capsys.readouterr().out) == note


@pytest.mark.parametrize(("ess", "said"), [([1.0, 1.2], True), ([1.0, 5.0], False)])
def test_estimates_that_rest_on_one_sample_are_named(monkeypatch, capsys, ess, said):
    monkeypatch.setattr(tables, "load_config", lambda path: {"demo": False})
    config = SimpleNamespace(model=None, json=None, seed=0, n_samples=100, tolerance=None, demo=False)
    values = {
        "log p(x)": torch.zeros(2),
        "effective samples, log p(x)": torch.tensor(ess),
        "log p(y)": torch.zeros(2),
        "effective samples, log p(y)": torch.ones(2) * 9,
    }
    tables.report_estimates(values, config, "mnist", 2)
    note = 'Fewer than 2 samples are effective for "log p(x)": these estimates may be far below log p.'
    assert (f"\n\n{note}\n" in capsys.readouterr().out) == said
