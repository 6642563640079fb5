"""Fit a density to the latents of a trained model, to draw from in place of the prior.

    python -m tools.latent_prior polymnist/trained_models --data-dir polymnist/data                a flow
    python -m tools.latent_prior polymnist/trained_models --kind score --data-dir polymnist/data   a score network

It is fitted to one draw of q(z|X) for each training example; a tenth of them are held out and select the best epoch.
The loss is -log p(z) in nats for a flow, and the weighted squared error of the noise for a score network. Writes
latent_prior_maf.pt or latent_prior_score.pt beside the model, which --latent-prior of sample.py, analyse.py and
explore.py reads.
"""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated

from common import fitted_priors, latent_priors
from common.checkpoints import EXPERIMENTS, experiment_of, load_config, load_model
from common.data.batches import Examples
from common.data.splits import only_complete
from common.errors import require, require_positive, require_seed
from common.execution import devices
from common.latent_priors import Kind
from common.models.objectives import decodes_own_latents
from common.multimodal_vae import MultimodalVAE
from training import experiment_in, run_from_command_line
from training.options import ComputeOptions, DataOptions, default_of

import torch
import tyro


@dataclass
class Config(ComputeOptions, DataOptions):
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """a run's folder for its best model, or a checkpoint"""
    kind: Kind = "maf"
    """maf: a masked autoregressive flow; score: a score network, which for --model mmvm also draws the latents of some
    modalities given those of others"""
    epochs: int = 200
    """passes over the latents; 20 without a better loss end the fit"""

    def check(self) -> None:
        """Raise InputError for values that no fit can have."""
        require_positive(self, "epochs", "limit")
        require_seed(self)


def main(config: Config) -> list[float]:
    """Fit the density and write it; returns the loss after each epoch.

    Raises:
        InputError: a model or data that cannot be used, or a loss that is not finite.
    """
    config.check()
    model = load_model(config.model).to(devices.select(config.cuda))
    examples = training_examples(config, model).to(model.device)
    torch.manual_seed(config.seed)
    own = decodes_own_latents(load_config(config.model))
    z = fitted_priors.latents_of(model, examples, own).to(model.device)
    prior, losses = latent_priors.fit(config.kind, z, config.epochs)
    path = fitted_priors.path_of(config.model, config.kind)
    fitted_priors.save(prior, model, path)
    print(path)
    return losses


def training_examples(config: Config, model: MultimodalVAE) -> Examples:
    """The training split of the model's experiment, with the run's own options of the data; complete examples alone."""
    name = experiment_of(config.model)
    fits = EXPERIMENTS.get(name) == f"{name}.model" and isinstance(model, MultimodalVAE)
    require(fits, f"{config.model} is a model of {name}, whose scripts have no --latent-prior: give another")
    script = import_module(f"{name}.train")
    of_run = default_of(script.Config(pre_trained=config.model), None, None)
    ours = {name: getattr(config, name) for name in ("data_dir", "demo", "download", "limit")}
    of_run = replace(of_run, pre_trained=config.model, valid=0, **ours)
    experiment = experiment_in(script, of_run)
    return only_complete(experiment.examples(of_run, experiment.splits(of_run)[0], model))[0]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
