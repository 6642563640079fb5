"""A griffe extension for mkdocstrings: the formulas of docstrings, which are reStructuredText, in Markdown."""

import re
from textwrap import dedent, indent

import griffe

DISPLAYED = re.compile(r"^( *)\.\. math::(.*?)(?=\n *\n(?!\1 )|\Z)", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r":math:`([^`]*)`")


class Formulas(griffe.Extension):
    """Rewrites `.. math::` and :math: in every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of a module, class or function, if it has one."""
        if obj.docstring:
            obj.docstring.value = in_markdown(obj.docstring.value)


def in_markdown(docstring: str) -> str:
    """The docstring with its formulas between dollar signs."""

    def displayed(block: re.Match) -> str:
        return indent(f"$$\n{' '.join(dedent(block[2]).split())}\n$$", block[1])

    return INLINE.sub(r"$\1$", DISPLAYED.sub(displayed, docstring))
