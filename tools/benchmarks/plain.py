"""MVAE as the originals train it, on copies of our networks: a pass of all networks, one by one, for each ELBO term."""

from copy import deepcopy

from common.encoders_decoders import SplitLinearLayer, StackedDecoder
from common.models import MultimodalVAE
from common.subsets import random_subsets
from cub.caption_likelihood import VocabularyLayer
from mnist.model import EachClass
from multimnist.data import LENGTH, SOS
from multimnist.model import TextDecoder, TextEncoder
from reference.mvae import MVAE, elbo

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def as_written(model: MultimodalVAE) -> MultimodalVAE:
    """A copy without our optimisations of memory layout, of convolutions and of the words of captions."""
    model = deepcopy(model).to(memory_format=torch.contiguous_format)
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):
            module.__class__ = nn.ConvTranspose2d
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


class StringEncoder(nn.Module):
    """A GRU over all characters in both directions; only the outputs at the last character are used."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.embed, self.heads = encoder.embedding, encoder.heads
        self.gru = nn.GRU(encoder.forwards.input_size, encoder.forwards.hidden_size, bidirectional=True)
        backwards = {f"{name}_reverse": x for name, x in encoder.backwards.state_dict().items()}
        self.gru.load_state_dict(encoder.forwards.state_dict() | backwards)

    def forward(self, text: Tensor) -> tuple[Tensor, ...]:
        outputs, _ = self.gru(self.embed(text).transpose(0, 1))
        return self.heads(sum(outputs[-1].chunk(2, dim=1)))


class StringDecoder(nn.Module):
    """Decodes character by character, and feeds back the most likely one."""

    def __init__(self, decoder: TextDecoder) -> None:
        super().__init__()
        self.embed, self.z2h, self.h2o = decoder.embedding, decoder.start, decoder.output
        self.gru = nn.GRU(decoder.gru.input_size, decoder.gru.hidden_size, 2, dropout=0.1)
        self.gru.load_state_dict(decoder.gru.state_dict())

    def forward(self, z: Tensor) -> Tensor:
        words = z.new_zeros(len(z), LENGTH, self.h2o.out_features)
        character, h = torch.full_like(z[:, 0], SOS, dtype=torch.long), self.z2h(z).unsqueeze(0).repeat(2, 1, 1)
        for i in range(LENGTH):
            x = torch.cat([F.silu(self.embed(character)), z], dim=1)
            out, h = self.gru(x.unsqueeze(0), h)
            words[:, i] = self.h2o(torch.cat([out.squeeze(0), z], dim=1))
            character = F.log_softmax(words[:, i], dim=1).max(dim=1)[1]
        return words


AS_THE_ORIGINALS = {
    EachClass: lambda network: nn.Sequential(*network),  # they encode each example, we encode each class once
    TextEncoder: StringEncoder,
    TextDecoder: StringDecoder,
}


def plain_model(model: MultimodalVAE) -> MVAE:
    """The originals' model with copies of our networks."""
    networks = separate(model)
    for of_each in networks:
        of_each.update({m: AS_THE_ORIGINALS[type(x)](x) for m, x in of_each.items() if type(x) in AS_THE_ORIGINALS})
    return MVAE(*networks).to(next(model.parameters()).device)


def faces_loss(plain: MVAE, x: dict[str, Tensor], beta: float, k: int = 0, scores_all: bool = False) -> Tensor:
    """`reference.mvae.loss` of binary modalities, with the ELBOs of k random subsets.

    Args:
        scores_all: score all modalities in each term, as the authors do for vision; the loss then differs from ours.
    """
    m, lambda_ = len(x), dict.fromkeys(x, 1.0)
    loss, subsets = 0, [torch.eye(m).bool(), torch.ones(1, m).bool()]
    for subset in torch.cat([*subsets, *([random_subsets(m, k)] if k else [])]).tolist():
        given = {name: x[name] for name, is_given in zip(x, subset, strict=True) if is_given}
        scored = {name: value.float() for name, value in (x if scores_all else given).items()}
        loss = loss - elbo(*plain(given), scored, beta, lambda_).mean()
    return loss
