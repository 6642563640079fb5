"""Files of a run that are damaged, or that hold what a page must not run."""

import copy
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from urllib.parse import unquote

import msgspec
import pytest
from PIL import Image

import reproduce
from common.errors import InputError
from tests.helpers.results import contents, loglike
from tests.helpers.scripts import run_script
from tools.reproduction import commands, report, tables, work
from tools.reproduction.published import Published
from tools.reproduction.records import Figure, Measure, Plan, Setting, Table
from tools.reproduction.results import Result, read_epochs, read_training

WEAK = {"results": [{"fraction": 0.1, "model": 0.9, "classifier": 0.5}]}
WHOLE = contents(
    loglike=loglike(-90.0),
    coherence={"estimates": {"coherence, joint": {"mean": 0.4, "stderr": None}}},
    weak_supervision=WEAK,
    analysis={"by_size": {"1": {"coherence": 0.4, "FD": 100.0}}},
) | {"commit": "0123", "date": "2026-11-20", "config": {"lr": 0.001}, "versions": {"torch": "2"}}


def places(value, path=()):
    """The paths of all values inside one, by keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


MAY_BE_MISSING = {"estimates", "by_size", "results"}  # those of another measure
MAY_BE_NULL = {"commit", "threads", "examples", "seconds", "mean", "stderr"}
DAMAGES = {
    "missing": ...,
    "another type": lambda value: {"a": 1} if isinstance(value, str | int | float | list) else "x",
    "null": None,
    "nested": [[[[]]]],
}


def damaged(path, damage):
    """WHOLE with one place damaged; None if that is no damage there."""
    *way, key = path
    content = copy.deepcopy(WHOLE)
    holder = content
    for step in way:
        holder = holder[step]
    optional = isinstance(key, int) or way in (["measured"], ["config"]) or (len(way) > 2 and way[0] == "measured")
    harmless = {
        "missing": key in MAY_BE_MISSING or (optional and key not in ("mean", "fraction", "model", "classifier")),
        "null": key in MAY_BE_NULL or way[-2:-1] == ["by_size"] or way == ["config"],
    }
    if harmless.get(damage) or way == ["config"]:
        return None
    change = DAMAGES[damage]
    if change is ...:
        del holder[key]
    else:
        holder[key] = change(holder[key]) if callable(change) else change
    return content


def run(args):
    with pytest.raises(SystemExit) as caught:
        run_script(reproduce, args)
    return caught.value.code


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_takes_one_line(tmp_path, capsys, damage):
    file = tmp_path / "mvae-table2" / "mnist" / "mvae_seed0.json"
    file.parent.mkdir(parents=True)
    args = ["mvae-table2", "--tables-only", "--save-dir", str(tmp_path), "--results-dir", str(tmp_path)]
    tried = 0
    for path in places(WHOLE):
        content = damaged(path, damage)
        if content is not None:
            file.write_text(json.dumps(content))
            assert run(args) == 2, path
            said = capsys.readouterr()
            assert re.fullmatch(rf"error: {file} is damaged, .*: delete it, and .*\n", said.err), (path, said.err)
            assert len(said.err) < 600 and not said.out
            tried += 1
    assert tried >= 20


def test_a_number_of_given_modalities_that_is_none_is_damage(tmp_path, capsys):
    content = WHOLE | {"measured": {"analysis": {"by_size": {"x": {"coherence": 0.4, "FD": 100.0}}}}}
    file = tmp_path / "mvae-table2" / "mvae_seed0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    assert run(["mvae-table2", "--tables-only", "--save-dir", str(tmp_path), "--results-dir", str(tmp_path)]) == 2
    assert f"error: {file} is damaged, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"NaN",
        b'{"table": 1e999}',
        json.dumps(WHOLE)[:-9].encode(),
    ],
    ids=range(9),
)
def test_what_is_no_result_takes_one_line(tmp_path, capsys, content):
    file = tmp_path / "mvae-table2" / "x.json"
    file.parent.mkdir()
    file.write_bytes(content)
    assert run(["all", "--tables-only", "--save-dir", str(tmp_path), "--results-dir", str(tmp_path)]) == 2
    assert re.fullmatch(rf"error: {file} is damaged, .*: delete it, and .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_what_is_no_file_is_not_read(tmp_path, capsys, make):
    (tmp_path / "mvae-table2").mkdir()
    make(tmp_path / "mvae-table2" / "x.json")
    assert run(["all", "--tables-only", "--save-dir", str(tmp_path), "--results-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_all_results_are_as_the_schema_says():
    results = tables.load(commands.ROOT / "results")
    assert len(results) > 50
    assert msgspec.convert(WHOLE, Result).measured["weak_supervision"].results[0].model == 0.9


METRICS = {"epoch": 1, "train": {"bound": -1.0}, "valid": {"bound": -2.0}, "seconds": 1.5}
CONFIG = {"config": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", {"train": {"bound": -1.0}}),
        ("metrics.jsonl", METRICS | {"seconds": "long"}),
        ("metrics.jsonl", METRICS | {"train": {}}),
        ("metrics.jsonl", METRICS | {"valid": [1.0]}),
        ("metrics.jsonl", []),
        ("config.json", {}),
        ("config.json", {"config": "x" * 10_000}),
        ("config.json", [[[]]]),
    ],
)
def test_damaged_files_of_a_training_take_one_line(tmp_path, name, content):
    files = {"metrics.jsonl": METRICS, "config.json": CONFIG}
    for file, value in files.items():
        (tmp_path / file).write_text(json.dumps(value) + "\n")
    assert read_training(tmp_path) == CONFIG | {"seconds": 1.5, "curves": {"train": [-1.0], "valid": [-2.0]}}
    (tmp_path / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(InputError, match=rf"^{tmp_path / name}.* is damaged, .*: delete it, [^\n]*$"):
        read_training(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[1, 2, 3]", '["1", 2]', "[0, 0]", "[1, -1]", "[1e30, 1]"])
def test_damaged_epochs_take_one_line(tmp_path, content):
    (tmp_path / "epochs.json").write_text(content)
    with pytest.raises(InputError, match=r"epochs.json is damaged, .*: delete it, [^\n]*$"):
        read_epochs(tmp_path / "epochs.json")


def test_a_run_with_a_damaged_measure_fails_alone(tmp_path, monkeypatch):
    plan = Plan("mnist", "mvae", Setting(1, 0), Setting(1, 0), (Measure("loglike", "loglike"),))
    chain = work.Chain(
        (commands.Run("mvae-table2", plan, 0),), commands.Site(tmp_path, tmp_path, True, False, "fp32", None, 1)
    )
    folder = chain.site.folder(chain.runs[0])
    monkeypatch.setattr(work, "call", lambda *_: None)
    monkeypatch.setattr(work, "load", lambda _: {"n_train": 5})
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps(METRICS) + "\n")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for content in ("[]", json.dumps({"estimates": {"log p(image)": {"stderr": 1}}})):
        (folder / "loglike.json").write_text(content)
        assert re.fullmatch(r".* is damaged, .*: delete [^\n]*", chain())
        assert not (folder / work.RESULT).exists()
    (folder / "loglike.json").write_text(json.dumps(loglike(-90.0)))
    assert chain() is None and chain.finished()


HOSTILE = '</pre></script><script>document.title=1</script><img src=x onerror="document.title=1">\'"&'
HEIRS = HOSTILE.replace("/", "\u2215")  # in a folder's or file's name


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A report in which every name, and whatever a result's strings can hold, is a script."""
    figures = (
        Figure(f"a {HOSTILE}", ("loglike", "estimates", HOSTILE, "mean")),
        Figure(f"b {HOSTILE}", ("accuracy", "estimates", "accuracy", "mean"), True),
    )
    published = {figures[0].name: Published(-1.0)}
    plan = Plan(HEIRS, HOSTILE, Setting(1, 0), None, (), published, note=f"note {HOSTILE}")
    table = Table(f"title {HOSTILE}", f"source {HOSTILE}", figures, (plan,))
    monkeypatch.setattr(report, "TABLES", {HEIRS: table})
    content = contents(
        HOSTILE,
        table=HEIRS,
        experiment=HEIRS,
        loglike={"estimates": {HOSTILE: {"mean": -1.0}}},
        accuracy={"estimates": {"accuracy": {"mean": 0.5}}},
    )
    content |= {name: f"{name} {HOSTILE}" for name in ("commit", "device")}
    content |= {"commands": [f"command {HOSTILE}", HOSTILE], "config": {HOSTILE: HOSTILE}}
    content |= {"versions": {"torch": f"torch {HOSTILE}"}}
    samples = tmp_path / HEIRS / HEIRS / f"{commands.slug(HOSTILE)}_seed0" / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(samples / f"from_{HEIRS}.png")
    report.write(tmp_path / "report.html", [msgspec.convert(content, Result)])
    return tmp_path / "report.html"


class Tags(HTMLParser):
    """The tags of a page, (name, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_a_report_escapes_what_results_hold(hostile):
    text = hostile.read_text()
    tags = Tags(text).tags
    assert "script" not in {name for name, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    (picture,) = [unquote(attributes["src"]) for name, attributes in tags if name == "img"]
    assert (hostile.parent / picture).exists()
    shown = html.unescape(text)
    for field in ("title", "source", "note", "a", "b", "commit", "device", "torch", "command"):
        assert f"{field} {HOSTILE}" in shown, field


def test_ctrl_c_stops_a_command_without_a_traceback(tmp_path):
    script = "import sys\nfrom pathlib import Path\nfrom tools.reproduction.commands import Failed, call\ntry:\n"
    script += (
        f"    call(['sleep', '60'], Path({str(tmp_path)!r}), 1)\nexcept Failed as failure:\n    sys.exit(str(failure))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "log.txt").exists() or not (tmp_path / "log.txt").read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == f"stopped by Ctrl-C ({tmp_path / 'log.txt'})\n"
