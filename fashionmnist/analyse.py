"""Weakly supervised learning on FashionMNIST: how well is the class inferred where few images are paired with theirs?

    python analyse.py weak-supervision --data-dir data --precision bf16
    python analyse.py weak-supervision --demo --epochs 20 --fractions 0.1 1 --seeds 0

What is trained and measured, and what it writes: `python ../mnist/analyse.py --help`.
"""

from functools import partial

from common.training import run_from_command_line
from fashionmnist.train import experiment
from mnist import analyse
from mnist.analyse import Config

main = partial(analyse.main, experiment=experiment)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
