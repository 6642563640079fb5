"""Coherence of a model of FashionMNIST: do its samples and its latents show the class that they were given?

    python analyse.py trained_models --data-dir data     tables and pictures
    python analyse.py trained_models --demo              for the demo's model
    python analyse.py trained_models --json out.json     and a file

What is measured and drawn: `python ../mnist/analyse.py --help`.
"""

from functools import partial

from fashionmnist.data import CLASSES, FASHIONMNIST
from mnist.analyse import by_class
from reports.analysis import AnalysisConfig as Config
from reports.analysis import analyse
from training import run_from_command_line

main = partial(analyse, data=by_class(FASHIONMNIST, CLASSES))

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
