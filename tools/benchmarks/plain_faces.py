"""MVAE of many modalities as the originals write it: a forward pass of all networks, one by one, for each ELBO term."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from common.data import Batch
from common.encoders_decoders import SplitLinearLayer, StackedDecoder
from common.encoders_decoders.convolutions import Conv2d
from common.models import MultimodalVAE
from common.subsets import mvae_subsets
from cub.caption_likelihood import VocabularyLayer
from mnist.model import EachClass


def as_written(model: MultimodalVAE) -> MultimodalVAE:
    """A copy without our optimisations of memory layout, of convolutions and of the words of captions."""
    model = deepcopy(model).to(memory_format=torch.contiguous_format)
    for module in model.modules():
        for ours, theirs in ((Conv2d, nn.Conv2d), (nn.ConvTranspose2d, nn.ConvTranspose2d)):
            if isinstance(module, ours):
                module.__class__ = theirs
        if isinstance(module, VocabularyLayer):
            module.__class__ = nn.Linear
    return model


def separate(model: MultimodalVAE) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """A copy of a model's encoders and decoders, one for each modality, without our optimisations."""
    model = as_written(model)
    encoder, decoder = nn.ModuleDict(), nn.ModuleDict()
    for key, network in model.encoder.items():
        names = key.split(",")
        several = len(names) > 1
        encoder.update({name: _attribute_encoder(network, i) if several else network for i, name in enumerate(names)})
    for key, network in model.decoder.items():
        for i, name in enumerate(key.split(",")):
            layers = network
            if isinstance(network, StackedDecoder):
                layers = [_layer(x, i) if hasattr(x, "weight") else nn.SiLU() for x in network.network[:-1]]
                layers = nn.Sequential(*layers, nn.Flatten(0))
            decoder[name] = layers
    return encoder, decoder


def _attribute_encoder(stacked: nn.Module, i: int) -> EachClass:
    embedding = nn.Embedding.from_pretrained(stacked.embedding[i].detach().clone(), freeze=False)
    heads = SplitLinearLayer(stacked.hidden.weight.shape[1], stacked.out_features)
    heads.linear = _layer(stacked.heads, i)
    return EachClass(embedding, nn.SiLU(), _layer(stacked.hidden, i), nn.SiLU(), heads)


def _layer(stacked: nn.Module, i: int) -> nn.Linear:
    n, m = stacked.weight.shape[1:]
    linear = nn.Linear(m, n)
    linear.weight.data, linear.bias.data = stacked.weight[i].detach().clone(), stacked.bias[i, 0].detach().clone()
    return linear


class PlainFaces(nn.Module):
    """The authors' forward pass on a copy of a model: each term decodes all modalities and scores the given ones.

    Args:
        scores_all: score all modalities in each term, as the authors do for vision; the loss then differs from ours.
    """

    def __init__(self, model: MultimodalVAE, scores_all: bool = False) -> None:
        super().__init__()
        self.scores_all = scores_all
        self.encoder, self.decoder = separate(model)
        for name, network in self.encoder.items():
            if isinstance(network, EachClass):  # the authors encode each example, we encode each class once
                self.encoder[name] = nn.Sequential(*network)
        self.columns = model.columns
        self.weights = model.weights

    def elbo(self, batch: Batch, given: Sequence[str], beta: float) -> Tensor:
        """The ELBO of the given modalities, (B,)."""
        mus, variances = [0], [1]
        for name in given:
            mu, logvar = self.encoder[name](batch.modalities[name])
            mus.append(mu / (logvar.exp() + 1e-8))
            variances.append(1 / (logvar.exp() + 1e-8))
        precision = sum(variances)
        mu, logvar = sum(mus) / precision, (1 / precision).log()
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        logits = {name: decoder(z) for name, decoder in self.decoder.items()}
        value = 0.5 * beta * (1 + logvar - mu**2 - logvar.exp()).sum(dim=1)
        for name in self.decoder if self.scores_all else given:
            x = batch.modalities[name].float()
            loss = binary_cross_entropy_with_logits(logits[name], x, reduction="none")
            value = value - self.weights[name] * loss.reshape(len(x), -1).sum(dim=1)
        return value

    def loss(self, batch: Batch, beta: float, k: int = 0, generator: torch.Generator | None = None) -> Tensor:
        """The sum of the losses of all modalities, of each alone, and of k random subsets."""
        subsets = mvae_subsets(self.columns, k, generator).tolist()
        terms = [[name for name, is_given in zip(self.columns, subset, strict=True) if is_given] for subset in subsets]
        return -sum(self.elbo(batch, given, beta).mean() for given in terms)


def training_step(model: MultimodalVAE, k: int, beta: float, scores_all: bool = False) -> Callable[[Batch], None]:
    """The authors' training step on a copy of the model; k is the number of random subsets."""
    plain, generator = PlainFaces(model, scores_all), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4, foreach=False)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = plain.loss(batch, beta, k, generator)
        loss.backward()
        optimizer.step()
        loss.item()

    return step
