"""Log-likelihoods of a model of numbers in English and French, and how many of the test numbers it translates rightly.

    python loglike.py trained_models                                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

log p(english,french), log p(english) and log p(french) share samples of q(z|english,french); the last two are estimated
with samples of each encoder alone too (nats per number). A translation is right if all of its words are, and the
blanks after them too; analyse.py reads a text up to its first blank.
"""

from dataclasses import dataclass
from functools import partial

from common.data import Batch
from common.estimators import joint_and_each
from common.models import MultimodalVAE
from reports import metrics, tables
from reports.options import LoglikeConfig
from training import run_from_command_line
from translation.data import CODES, load
from translation.options import NoFiles

import torch
from torch import Tensor

BATCH_SIZE = 100


@dataclass
class Config(NoFiles, LoglikeConfig):
    """The options of loglike.py."""


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model = config.trained_model("translation")
    examples = load("test", config)
    torch.manual_seed(config.seed)
    evaluations = [accuracies, partial(joint_and_each, **config.sampling)]
    values = metrics.evaluate_examples(model, examples, evaluations, BATCH_SIZE)
    return tables.report_estimates(values, config, "translation", len(examples))


def accuracies(model: MultimodalVAE, batch: Batch) -> dict[str, Tensor]:
    """Whether each text is translated, and decoded from itself, without a wrong word: {name: (B,)}, 0 or 1."""
    decoded = {source: model.reconstruct(batch, given=(source,)) for source in CODES}
    return {
        f"accuracy, {source} -> {target}": (decoded[source][target] == batch.modalities[target]).all(dim=1).float()
        for source in CODES
        for target in CODES
    }


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
