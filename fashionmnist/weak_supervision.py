"""Weakly supervised learning on FashionMNIST: how well is the class inferred where few images are paired with theirs?

    python weak_supervision.py --data-dir data --precision bf16
    python weak_supervision.py --demo

What is trained and measured, and what it writes: `python ../mnist/weak_supervision.py --help`.
"""

from functools import partial

from fashionmnist.train import experiment
from mnist import weak_supervision
from training import run_from_command_line

Config = weak_supervision.Config
DEMO = Config(demo=True, epochs=20, fractions=(0.1, 1.0), seeds=(0,))
main = partial(weak_supervision.main, experiment=experiment)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
