"""The package multivae's newer models, MoPoE, MVTCAE, CRMVAE, MMVAE+ and CMVAE, on the networks of ours (PolyMNIST's).

Needs the extra: pip install --editable ".[bench]".
"""

import common.data.torchvision_import  # noqa: F401 (else the package's import of torchvision fails)

from torch import Tensor, nn

# isort: split
from common.data import Batch
from common.objectives import Objective
from polymnist.model import LIKELIHOOD_SCALE
from tools.benchmarks import package

import multivae.models as multivae
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models.base import BaseEncoder, ModelOutput


class Encoder(BaseEncoder):
    """The package's interface around an encoder of ours, with parameters of shared and of private latents."""

    def __init__(self, network: nn.Module, n_shared: int) -> None:
        super().__init__()
        self.network, self.n_shared = network, n_shared

    def forward(self, x: Tensor) -> ModelOutput:
        (mu, own_mu), (a, own_a) = ((p[:, : self.n_shared], p[:, self.n_shared :]) for p in self.network(x))
        # the package writes into the log-variances of absent modalities
        return ModelOutput(embedding=mu, log_covariance=a.clone(), style_embedding=own_mu, style_log_covariance=own_a)


def counterpart(objective: Objective, kind: str, beta: float, **options: object) -> nn.Module:
    """The package's model of a class with the networks, weights and likelihoods of an objective's model."""
    model = objective.model
    n_shared = model.latent_dim if model.n_shared is None else model.n_shared
    config = getattr(multivae, f"{kind}Config")(
        n_modalities=len(model.modalities),
        latent_dim=n_shared,
        uses_likelihood_rescaling=True,
        rescale_factors=objective.weights,
        decoders_dist=dict.fromkeys(model.modalities, "laplace"),
        # a dict for each, since the package empties them
        decoder_dist_params={name: {"scale": LIKELIHOOD_SCALE} for name in model.modalities},
        beta=beta,
        **options,
    )
    encoders = {name: Encoder(model.encoder[name], n_shared) for name in model.modalities}
    return getattr(multivae, kind)(
        config, encoders, {name: package.Decoder(model.decoder[name]) for name in model.modalities}
    )


def inputs(batch: Batch) -> MultimodalBaseDataset:
    """A batch in the package's format."""
    return MultimodalBaseDataset(batch.modalities)
