"""Noise of importance-weighted gradients of a model of MNIST, against the number of samples K.

    python gradients.py trained_models --data-dir data             a table, and gradients.png beside the model
    python gradients.py trained_models --demo --limit 5            of a model of the built-in digits

For one batch of test images, the gradient of each bound with respect to the encoders' parameters is drawn --n-samples
times. Its noise is its variance divided by its squared mean, each summed over the parameters: with IWAE's own gradient
it grows with K (Rainforth et al. 2018, arXiv 1802.04537), with DReG's it grows less or not at all (Tucker et al. 2019,
arXiv 1810.04152). STL has as little noise but is biased for K > 1, as are DReG's rules other than "exact" for mixtures.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product

from common.data import Batch
from common.errors import require
from common.objectives import DregIwaeElbo, IwaeElbo, Objective, StlElbo
from common.objectives.importance import GRADIENTS
from common.progress import progress_bar
from mnist.data import MNIST, Dataset, load_as_trained
from reports import options, plots, tables
from training import run_from_command_line

import torch
from torch import nn


@dataclass
class Config(options.SamplesConfig):
    K: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """numbers of samples from each component of the posterior"""
    n_samples: int = 50
    """gradients to draw for each estimator and K"""
    limit: int | None = 20
    """use only the first N test images"""

    def check(self) -> None:
        super().check()
        require(len(self.K) > 0 and min(self.K) > 0, f"--K must be positive numbers, not {self.K}")
        require(self.n_samples > 1, f"--n-samples: a variance takes two gradients or more, not {self.n_samples}")


def main(config: Config, dataset: Dataset = MNIST) -> dict[str, list[float]]:
    """Report the noise by estimator, for each K: {name: [variance / squared mean]}."""
    config.check()
    model = config.trained_model(dataset.name)
    has_density = model.variational_posterior.has_density
    lacking = f"these estimators need a density in closed form, which the posterior of {config.model} lacks"
    require(has_density, f"{lacking}: give a model of another --posterior")
    examples = load_as_trained("test", config, dataset).only(model.modalities)
    batch = examples.to(model.device)[:]
    dreg = {"DReG": DregIwaeElbo}
    if model.variational_posterior.is_mixture:
        dreg = {f"DReG, {rule}": partial(DregIwaeElbo, gradient=rule) for rule in GRADIENTS}
    estimators = {"IWAE": IwaeElbo, "STL": StlElbo} | dreg
    torch.manual_seed(config.seed)
    curves = {name: [] for name in estimators}
    for k, name in progress_bar([*product(config.K, estimators)], unit=" estimators"):
        objective = estimators[name](model, k, looser=True)
        curves[name].append(noise(objective, batch, model.encoder.parameters(), config.n_samples))
    rows = [(str(k), *(f"{value:.3g}" for value in row)) for k, *row in zip(config.K, *curves.values(), strict=True)]
    notes = f"{'demo data, ' * config.demo}{tables.count(len(batch), 'test image')}, {config.n_samples} draws."
    head = (f"{dataset.name}, noise of the gradient: K", *curves)
    print(f"\n{tables.Table('noise', curves, head, rows, notes=notes)}")
    path = config.samples_dir / "gradients.png"
    points = {name: [(value, 0.0) for value in values] for name, values in curves.items()}
    plots.error_bars(path, config.K, points, ("K", "variance / squared mean"), "the encoders' gradient", log=True)
    print(f"\n{path}")
    return curves


def noise(objective: Objective, batch: Batch, parameters: Iterable[nn.Parameter], n: int) -> float:
    """The variance of a gradient over the square of its mean, both summed over the parameters, of n draws.

    The mean's own noise, 1 / n of the variance, is taken off its square.
    """
    parameters = list(parameters)
    mean = square = 0.0
    for i in range(1, n + 1):
        objective.zero_grad()
        objective.backward(batch, 1.0, len(batch))
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()
        apart = gradient - mean
        mean = mean + apart / i
        square = square + apart * (gradient - mean)  # Welford's sum of squares
    variance = (square / (n - 1)).sum()
    return (variance / (mean.square().sum() - variance / n)).item()


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
