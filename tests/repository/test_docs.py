"""The documentation's pages: formulas in Markdown, links, and a site that needs no network."""

import re
import subprocess
import sys

from tests.helpers.scripts import ROOT
from tests.repository.test_imports import ORDER

import pytest

formulas = pytest.importorskip("docs.formulas", reason="the extra docs is not installed")


@pytest.mark.slow
def test_the_site_is_whole_and_needs_no_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    reference = "".join(text for name, text in pages.items() if name.startswith("api/"))
    rooms = {name.rpartition(".")[0] for name in ORDER} - {"common"}
    missing = [name for name in ORDER if name not in rooms and f'id="{name}"' not in reference]
    assert not missing, f"the reference lacks {missing}"
    shown = re.sub(r"<details.*?</details>", "", reference, flags=re.DOTALL)  # the source has formulas as they were
    assert shown.count("<math") > 50 and not re.search(r"math::|:math:|\\\[|\\\(", shown)
    assert 'href="mnist/"' in pages["index.html"]
    for name, text in pages.items():
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="https?:', text), f"{name} loads from the network"
        used = re.findall(
            r'<(?:script|img)[^>]*\ssrc="([^"#]+)|<link[^>]*rel="(?:stylesheet|icon)"[^>]*href="([^"]+)', text
        )
        files = [(tmp_path / name).parent / (source or style) for source, style in used]
        assert len(files) > 3
        assert name == "404.html" or not [file for file in files if not file.resolve().is_file()], name
