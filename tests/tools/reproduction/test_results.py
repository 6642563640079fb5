"""Files of a run that are damaged, or that hold what a page must not run."""

import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

from common.errors import InputError
from tests.helpers.results import contents, loglike
from tools.reproduction import commands, report, tables, work
from tools.reproduction.published import Published
from tools.reproduction.records import Figure, Measure, Plan, Setting, Table
from tools.reproduction.results import Result, read_epochs, read_training

import msgspec
import pytest
from PIL import Image

WHOLE = contents(loglike=loglike(-90.0))
DAMAGED = {
    "empty": b"",
    "deep": b"[" * 100_000,
    "another type": json.dumps(WHOLE | {"seed": "x"}).encode(),
    "missing": json.dumps({name: x for name, x in WHOLE.items() if name != "epochs"}).encode(),
    "no number": json.dumps(WHOLE | {"measured": {"loglike": {"estimates": {"x": {"mean": "-90"}}}}}).encode(),
    "no size": json.dumps(WHOLE | {"measured": {"analysis": {"by_size": {"x": {"coherence": 0.4}}}}}).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_takes_one_line(tmp_path, content):
    file = tmp_path / "mvae-table2" / "x.json"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{file} is damaged, [^\n]*: delete it, and [^\n]*$"):
        tables.load(tmp_path)


METRICS = {"epoch": 1, "train": {"bound": -1.0}, "valid": {"bound": -2.0}, "seconds": 1.5}
CONFIG = {"config": {"lr": 0.1}}


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


def test_damaged_files_of_a_training_take_one_line(tmp_path):
    files = {"metrics.jsonl": METRICS, "config.json": CONFIG}
    for file, value in files.items():
        (tmp_path / file).write_text(json.dumps(value) + "\n")
    assert read_training(tmp_path) == CONFIG | {"seconds": 1.5, "curves": {"train": [-1.0], "valid": [-2.0]}}
    for file, content in (("metrics.jsonl", METRICS | {"train": {}}), ("config.json", {}), ("epochs.json", [0, -1])):
        (tmp_path / file).write_text(json.dumps(content) + "\n")
        with pytest.raises(InputError, match=rf"^{tmp_path / file}.* is damaged, .*: delete it, [^\n]*$"):
            read_epochs(tmp_path / file) if file == "epochs.json" else read_training(tmp_path)
        (tmp_path / file).write_text(json.dumps(files.get(file)) + "\n")


class Tags(HTMLParser):
    """The tags of a page, (name, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_a_report_escapes_what_results_hold(tmp_path, monkeypatch):
    """Every name, and whatever a result's strings can hold, is a script."""
    figure = Figure(f"a {HOSTILE}", ("loglike", "estimates", HOSTILE, "mean"))
    plan = Plan(HEIRS, HOSTILE, Setting(1, 0), None, (), {figure.name: Published(-1.0)}, note=f"note {HOSTILE}")
    table = Table(f"title {HOSTILE}", f"source {HOSTILE}", (figure,), (plan,))
    monkeypatch.setattr(report, "TABLES", {HEIRS: table})
    names = {"table": HEIRS, "experiment": HEIRS, "loglike": {"estimates": {HOSTILE: {"mean": -1.0}}}}
    content = contents(HOSTILE, **names) | {name: f"{name} {HOSTILE}" for name in ("commit", "device")}
    content |= {"commands": [f"command {HOSTILE}", HOSTILE], "config": {HOSTILE: HOSTILE}}
    content |= {"versions": {"torch": f"torch {HOSTILE}"}}
    samples = tmp_path / HEIRS / HEIRS / f"{commands.slug(HOSTILE)}_seed0" / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(samples / f"from_{HEIRS}.png")
    report.write(tmp_path / "report.html", [msgspec.convert(content, Result)])
    text = (tmp_path / "report.html").read_text()
    tags, shown = Tags(text).tags, html.unescape(text)
    assert "script" not in {name for name, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    (picture,) = [unquote(attributes["src"]) for name, attributes in tags if name == "img"]
    assert (tmp_path / picture).exists()
    for field in ("title", "source", "note", "a", "commit", "device", "torch", "command"):
        assert f"{field} {HOSTILE}" in shown, field
