"""The pages of the documentation (`make docs`): READMEs, docs/, results/, and an API reference from the docstrings.

Pages keep their places in the repository, so that links work as they do there. The API reference has a page for each
part of `common/__init__.py`'s table of contents, which names every module, and one for each framework.
"""

import re
from pathlib import Path

import common

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = (
    "*.md",
    "*.cff",
    "*/README.md",
    "docs/*.md",
    "docs/*.png",
    "results/*.md",
    "results/*.svg",
    "results/measurements/*",
    "vhe/example_*.py",
    "notebooks/*.ipynb",
)
FRAMEWORKS = {"vhe": ("vhe", "vhe.framework"), "multivae_api": ("multivae_api.config", "multivae_api.mmvae")}
FRAMEWORKS |= {
    room: tuple(f"{room}.{path.stem}" for path in sorted((ROOT / room).glob("[!_]*.py")))
    for room in ("training", "reports")
}
ENTRY = re.compile(r"^( {4}| {8})(\w+)(/?): ", re.MULTILINE)  # of the table of contents
LINK = re.compile(r"(?<=\]\()([^)#:]+)(?=[)#])")  # inside the repository, without its anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files."""
    paths = dict.fromkeys(path for pattern in SHOWN for path in sorted(ROOT.glob(pattern)))
    repository = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    reference = [File.generated(config, f"api/{name}.md", content=text) for name, text in api_pages().items()]
    appearance = [file for file in files if file.src_dir != config.docs_dir or file.src_uri in config.extra_css]
    return Files([*appearance, *repository, *reference])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text with links to the READMEs of folders, where the repository's web pages show them for the folder."""
    folder = (ROOT / page.file.src_uri).parent

    def to_readme(link: re.Match) -> str:
        return f"{link[0]}/README.md" if (folder / link[0] / "README.md").is_file() else link[0]

    return LINK.sub(to_readme, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its formulas as MathML, which browsers draw without a script."""
    html = re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', lambda x: _mathml(x[1], "block"), html, flags=re.S)
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda x: _mathml(x[1], "inline"), html, flags=re.S)


def _mathml(escaped: str, display: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        escaped = escaped.replace(entity, character)
    return convert(escaped, display=display)


def api_pages() -> dict[str, str]:
    """The pages of the API reference, {name: Markdown}."""
    _, *parts = re.split(r"^(?=\S[^\n:]*\n {4}\w)", common.__doc__, flags=re.MULTILINE)
    pages = {}
    for part in parts:
        title = part.splitlines()[0]
        pages[title.lower().replace(" ", "-")] = _reference(title, _modules(part))
    return pages | {name: _reference(f"`{name}`", modules) for name, modules in FRAMEWORKS.items()}


def _modules(part: str) -> list[str]:
    """The modules that a part of the table of contents names."""
    names, room = [], ""
    for indent, name, slash in ENTRY.findall(part):
        if len(indent) == 4:
            room = f"{name}." if slash else ""
        if not slash:
            names.append(f"common.{room if len(indent) == 8 else ''}{name}")
    return names


def _reference(title: str, modules: list[str] | tuple[str, ...]) -> str:
    return f"# {title}\n\n" + "\n".join(f"::: {module}\n" for module in modules)
