"""The notebooks, run as they stand, and what they find."""

import itertools

from tests.helpers.scripts import ROOT

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra notebooks is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra notebooks is not installed")

FOUND = {
    "own_modalities": "assert scores['image',] > 0.8 and scores['ink',] < 0.4",
    "compare_fusions": "assert ceiling > 0.95 and all(x['text -> image'] > 0.5 for x in scores.values())",
    "impute_tables": "assert errors['mean']['multimodal VAE'] < 0.8 * errors['mean'].max() and right > 0.8",
    "analyse_a_model": "assert all(x > 0.4 for x in linear.values()) and -200 < log_p.mean() < -100",
}
CHANGED = {"demo=False": "demo=True", "ITERATIONS = 2": "ITERATIONS = 0"}  # no files, no regressions for minutes


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert any("image/png" in out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", []))
    for cell, (old, new) in itertools.product(notebook.cells, CHANGED.items()):
        cell.source = cell.source.replace(old, new)
    notebook.cells.append(nbformat.v4.new_code_cell(FOUND[name]))
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": tmp_path}}).execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert pictures


def test_every_notebook_is_run():
    assert sorted(FOUND) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
