import re
import sys
import time

from common import progress
from common.progress import progress_bar
from training.loop import show_means
from training.runs import Progress, report_epoch

import pytest


def test_the_best_epoch_is_the_first_of_the_highest_score():
    progress = Progress(n_train=10)
    assert [progress.end_epoch(score) for score in (-3.0, -2.0, -2.0, -2.5)] == [True, True, False, False]
    assert (progress.best, progress.best_epoch, progress.epoch) == (-2.0, 2, 4)


def test_a_bar_shows_up_to_twelve_means(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(total=100) as bar:
        show_means(bar, 0.5, {"bound": -3.14, "kl": 2.0})
        assert bar.postfix == "beta=0.50, bound=-3.1, kl=2.0"
        show_means(bar, 1.0, {"bound": -3.0} | {f"term {i}": 1.0 for i in range(11)})
        assert "term 10" in bar.postfix, "twelve terms fit"
        show_means(bar, 1.0, {"bound": -3.0} | {f"term {i}": 1.0 for i in range(12)})
        assert bar.postfix == "beta=1.00, bound=-3.0"


def test_progress_is_whole_lines_where_standard_error_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.05)
    with progress_bar(total=100, initial=40, unit=" examples", desc="epoch 3", leave=False) as bar:
        show_means(bar, 0.5, {"bound": -3.14})
        time.sleep(0.1)
        bar.update(30)
        shown = capsys.readouterr().err
    assert re.fullmatch(r"\repoch 3: 70 of 100, \d\d:\d\d, \S+ left, \S+ examples/s, beta=0.50, bound=-3.1\n", shown)


@pytest.mark.parametrize(("is_best", "mark"), [(True, " *"), (False, "  ")])
def test_an_epochs_line(capsys, is_best, mark):
    line = {"epoch": 2, "train": {"bound": -3.0}, "beta": 0.5, "examples_per_second": 1234.5}
    report_epoch(line | {"valid": {"bound": -4.0}}, 5, is_best)
    assert capsys.readouterr().out == f"epoch 2/5  bound -3.00  valid -4.00{mark}  beta 0.50  1,234 examples/s\n"
    report_epoch(line, 5, is_best)
    assert capsys.readouterr().out == "epoch 2/5  bound -3.00  beta 0.50  1,234 examples/s\n"
