"""Coherence of a model of FashionMNIST: do its samples and its latents show the class that they were given?

    python analyse.py trained_models --data-dir data     tables and pictures
    python analyse.py trained_models --demo              for the demo's model
    python analyse.py trained_models --json out.json     and a file

What is measured and drawn: `python ../mnist/analyse.py --help`.
"""

from common.scripts.analysis import AnalysisConfig as Config
from common.scripts.analysis import analyse
from common.training import run_from_command_line
from fashionmnist.data import CLASSES, FASHIONMNIST
from mnist.analyse import by_class


def main(config: Config) -> dict[str, float]:
    """Analyse a model, see `common.scripts.analysis.analyse`."""
    return analyse(config, by_class(FASHIONMNIST, CLASSES))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
