"""Refuse to be installed without the checkout.

A copy in site-packages would scatter the names common, mnist, vision, ... there, among other packages of these names.
"""

import sys

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

NOT_EDITABLE = "multimodal-vaes is used from its checkout: pip install --editable PATH-OF-THE-CHECKOUT"


class NoWheel(bdist_wheel):
    """The command that builds the wheel of an installation that is not editable."""

    def run(self) -> None:
        """Exit with a line that says what to do."""
        sys.exit(NOT_EDITABLE)


setup(cmdclass={"bdist_wheel": NoWheel})
