"""The package multivae (https://github.com/AgatheSenellart/MultiVae) on our networks, objectives and batches.

Needs the extra: pip install --editable ".[bench]". The package's MVAE and MMVAE get copies of our networks. Adapted to
ours:

- Its Bernoulli likelihood refuses intensities between 0 and 1: the same formula without the check replaces it.
- Padding of captions gets one-hot vectors of zeros, which its categorical likelihood scores as 0.
- A scale softplus(a) + eta is passed as the log-variance of its normal experts and prior.

It has no mixture of experts of two families, so CUB's images are left out.

Remaining differences: it draws random subsets uniformly among all subsets of 2 to M - 1 modalities, we draw the size
uniformly; its DReG is our "stop-all" gradient, from one surrogate; it adds 1e-6 to the scales of the Laplace prior.
"""

from collections.abc import Callable

import common.data.torchvision_import  # noqa: F401 (else the package's import of torchvision fails)

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, softplus

# isort: split
from common.data import Batch
from common.likelihoods import BernoulliLikelihood, BinaryLikelihood, CategoricalLikelihood, LocationScaleLikelihood
from common.models import MultimodalVAE
from common.objectives import DregIwaeElbo, MvaeElbo
from common.variational_posteriors import MIN_SCALE, LaplacePosterior, SoftplusPosterior
from cub.caption_likelihood import CaptionLikelihood
from cub.captions import PADDING
from tools.benchmarks.plain import separate

from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import MMVAE, MVAE, MMVAEConfig, MVAEConfig
from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput

LIKELIHOODS = {
    BernoulliLikelihood: "bernoulli",
    BinaryLikelihood: "bernoulli",
    CategoricalLikelihood: "categorical",
    CaptionLikelihood: "categorical",
    LocationScaleLikelihood: "laplace",
}
EXPERTS = {LaplacePosterior: "laplace_with_softmax", SoftplusPosterior: "normal"}


class Encoder(BaseEncoder):
    """The package's interface around an encoder of ours."""

    def __init__(self, network: nn.Module, family: nn.Module) -> None:
        super().__init__()
        self.network, self.family = network, family

    def forward(self, x: Tensor | dict[str, Tensor]) -> ModelOutput:
        mu, a = self.network(x["tokens"] if isinstance(x, dict) else x)
        return ModelOutput(embedding=mu, log_covariance=log_covariance(self.family, a))


class Decoder(BaseDecoder):
    """The package's interface around a decoder of ours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


def log_covariance(family: nn.Module, a: Tensor) -> Tensor:
    """The package's parameter for the scale that the family computes from a."""
    return 2 * (softplus(a) + MIN_SCALE).log() if isinstance(family, SoftplusPosterior) else a


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """log p of each pixel, for intensities in [0, 1] too."""
    return -binary_cross_entropy_with_logits(logits, x.to(logits), reduction="none")


def counterpart(objective: MvaeElbo | DregIwaeElbo, beta: float = 1.0) -> MVAE | MMVAE:
    """The package's model with the same loss as the objective at beta; MMVAE's is a sum over the batch, at beta = 1."""
    model = objective.model
    mixture = isinstance(objective, DregIwaeElbo)
    family = model.variational_posterior.component if mixture else model.variational_posterior
    encoder, decoder = separate(model)
    encoders = {name: Encoder(network, family) for name, network in encoder.items()}
    decoders = {name: Decoder(decoder[name]) for name in encoder}
    options = {
        "n_modalities": len(encoders),
        "latent_dim": model.prior().event_shape[0],
        "uses_likelihood_rescaling": True,
        "rescale_factors": objective.weights,
        "decoders_dist": {name: LIKELIHOODS[type(p)] for name, p in model.likelihood.items()},
        "decoder_dist_params": {
            name: {"scale": p.scale} for name, p in model.likelihood.items() if isinstance(p, LocationScaleLikelihood)
        },
    }
    if mixture:
        package = MMVAE(
            MMVAEConfig(**options, K=objective.K, prior_and_posterior_dist=EXPERTS[type(family)]), encoders, decoders
        )
        package.prior_log_var.data = log_covariance(family, model.prior.scale.detach()).clone()[None]
    else:
        package = MVAE(MVAEConfig(**options, k=objective.K, warmup=0, beta=beta), encoders, decoders)
    for name, likelihood in options["decoders_dist"].items():
        if likelihood == "bernoulli":
            package.recon_log_probs[name] = bernoulli
    return package


def inputs(model: MultimodalVAE, batch: Batch) -> MultimodalBaseDataset:
    """A batch in the package's format: class ids in a dict, and captions also as one-hot vectors."""
    data = {}
    for name, x in batch.modalities.items():
        likelihood = model.likelihood[name]
        data[name] = {"tokens": x} if LIKELIHOODS[type(likelihood)] == "categorical" else x
        if isinstance(likelihood, CaptionLikelihood):
            n_words = model.encoder[name][0].num_embeddings
            data[name]["one_hot"] = one_hot(x, n_words).float() * (x != PADDING)[..., None]
    return MultimodalBaseDataset(data)


def training_step(objective: MvaeElbo | DregIwaeElbo, beta: float = 1.0) -> Callable[[Batch], None]:
    """The training step of the package's trainer, with its default optimiser."""
    package = counterpart(objective, beta).to(next(objective.parameters()).device)
    optimizer = torch.optim.Adam(package.parameters(), lr=1e-4)

    def step(batch: Batch) -> None:
        output = package(inputs(objective.model, batch))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        output.loss_sum.item()

    return step
