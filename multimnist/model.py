"""Networks of the models on MultiMNIST (layers of the authors' multimnist/model.py)."""

from functools import partial
from types import SimpleNamespace

from common.authors_files import MVAE_IMAGE, layer
from common.checkpoints import NetworkOptions
from common.convolutions import ConvTranspose2d
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood
from common.models import MultimodalVAE
from common.models.choices import Networks, build_pair
from multimnist.data import N_CHARACTERS, SOS
from multimnist.options import LENGTH
from multimnist.text import TeacherForcedLikelihood

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

N_HIDDEN, WIDTH = 200, 512


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    teacher_forcing: bool | None = None


class TextFeatures(nn.Module):
    """Strings (N, L) -> features (N, H), from a bidirectional GRU.

    As in the authors' code both directions are read at the last character, which is the first one backwards.
    """

    def __init__(self, n_characters: int = N_CHARACTERS) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_characters, N_HIDDEN)
        self.forwards = nn.GRU(N_HIDDEN, N_HIDDEN, batch_first=True)
        self.backwards = nn.GRU(N_HIDDEN, N_HIDDEN, batch_first=True)

    def forward(self, text: Tensor) -> Tensor:
        characters = self.embedding(text)  # (N, L, H)
        return self.forwards(characters)[0][:, -1] + self.backwards(characters[:, -1:])[0][:, 0]


class TextEncoder(TextFeatures):
    """Strings (N, L) -> parameters of their expert, (N, D) each; heads holds each D."""

    def __init__(self, heads: tuple[int, ...], n_characters: int = N_CHARACTERS) -> None:
        super().__init__(n_characters)
        self.heads = SplitLinearLayer(N_HIDDEN, heads)

    def forward(self, text: Tensor) -> tuple[Tensor, ...]:
        return self.heads(super().forward(text))


class TextDecoder(nn.Module):
    """z (N, D) -> logits of the characters (N, L, C): a GRU of two layers that gets z and the previous character.

    The previous character is the true one with teacher forcing (`teacher_forced`), else the most likely one.

    Args:
        n_characters: C, the start character among them.
        length: L.
        start: id of the character before the first one.
    """

    def __init__(
        self, n_latents: int, n_characters: int = N_CHARACTERS, length: int = LENGTH, start: int = SOS
    ) -> None:
        super().__init__()
        self.length, self.sos_id = length, start
        self.embedding = nn.Embedding(n_characters, N_HIDDEN)
        self.start = nn.Linear(n_latents, N_HIDDEN)
        self.gru = nn.GRU(N_HIDDEN + n_latents, N_HIDDEN, num_layers=2, dropout=0.1, batch_first=True)
        self.output = nn.Linear(N_HIDDEN + n_latents, n_characters)

    def forward(self, z: Tensor) -> Tensor:
        character, state, logits = self.sos(z), self.state(z), []
        for _ in range(self.length):
            next_logits, state = self.continued(z, character, state)
            character = next_logits.argmax(dim=-1)
            logits.append(next_logits)
        return torch.cat(logits, dim=1)

    def teacher_forced(self, z: Tensor, text: Tensor) -> Tensor:
        """Return logits (N, L, C), each given z and the characters of text (N, L) before it."""
        return self.continued(z, torch.cat([self.sos(z), text[:, :-1]], dim=1), self.state(z))[0]

    def sos(self, z: Tensor) -> Tensor:
        """Return the start characters (N, 1) int64."""
        return torch.full((len(z), 1), self.sos_id, device=z.device)

    def state(self, z: Tensor) -> Tensor:
        """Return the state of both layers before the first character, (2, N, H)."""
        return self.start(z).expand(2, -1, -1).contiguous()

    def continued(self, z: Tensor, characters: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, L, C) of the character after each of the characters (N, L), and the new state (2, N, H)."""
        z = z[:, None].expand(-1, characters.shape[1], -1)
        hidden, state = self.gru(torch.cat([nn.functional.silu(self.embedding(characters)), z], dim=-1), state)
        return self.output(torch.cat([hidden, z], dim=-1)), state


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image (B, 1, 50, 50) in [0, 1] and text (B, 4), ids of characters."""
    d, text_decoder, text_likelihood = config.n_latents, TextDecoder, partial(CategoricalLikelihood, event_dims=1)
    if config.teacher_forcing:  # the likelihood runs the network, which needs the true characters
        text_decoder, text_likelihood = lambda d: nn.Identity(), lambda: TeacherForcedLikelihood(TextDecoder(d))
    networks = Networks(
        encoder={
            "image": lambda heads: nn.Sequential(*image_features(), SplitLinearLayer(WIDTH, heads)),
            "text": TextEncoder,
        },
        features={"image": image_features, "text": lambda: nn.Sequential(TextFeatures(), nn.Linear(N_HIDDEN, WIDTH))},
        width=WIDTH,
        decoder={"image": image_decoder, "text": text_decoder},
        likelihood={"image": partial(BernoulliLikelihood, event_dims=3), "text": text_likelihood},
        condition=lambda text: one_hot(text, N_CHARACTERS).flatten(1),
        n_condition=LENGTH * N_CHARACTERS,
    )
    return build_pair(config.model, networks, d, config.posterior)


def image_features() -> nn.Sequential:
    """Build the network image (N, 1, 50, 50) -> features (N, 512)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1, bias=False), nn.SiLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU()),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.SiLU()),
        *(nn.Conv2d(128, 256, 4, 2, 0, bias=False), nn.BatchNorm2d(256), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(1024, WIDTH), nn.SiLU(), nn.Dropout(0.1)),
    )


def image_decoder(n_inputs: int) -> nn.Sequential:
    """Build the decoder (N, n_inputs) -> logits (N, 1, 50, 50)."""
    return nn.Sequential(
        *(nn.Linear(n_inputs, 1024), nn.SiLU(), nn.Unflatten(1, (256, 2, 2))),
        *(ConvTranspose2d(256, 128, 4, 2, 0, bias=False), nn.BatchNorm2d(128), nn.SiLU()),
        *(ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU()),
        *(ConvTranspose2d(64, 32, 5, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU()),
        ConvTranspose2d(32, 1, 4, 2, 1, bias=False),
    )


def _gru(ours: str, theirs: str, layer: str, suffix: str = "") -> dict[str, tuple[str]]:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {f"{ours}.{kind}_{layer}": (f"{theirs}.{kind}_{layer}{suffix}",) for kind in kinds}


# our parameters -> the authors'
AUTHORS = {
    **MVAE_IMAGE,
    "encoder.text.embedding.weight": ("text_encoder.embed.weight",),
    **_gru("encoder.text.forwards", "text_encoder.gru", "l0"),
    **_gru("encoder.text.backwards", "text_encoder.gru", "l0", "_reverse"),
    **layer("encoder.text.heads.linear", "text_encoder.h2p"),
    "decoder.text.embedding.weight": ("text_decoder.embed.weight",),
    **layer("decoder.text.start", "text_decoder.z2h"),
    **_gru("decoder.text.gru", "text_decoder.gru", "l0"),
    **_gru("decoder.text.gru", "text_decoder.gru", "l1"),
    **layer("decoder.text.output", "text_decoder.h2o"),
}
AUTHORS_OPTIONS = {"model": "mvae", "posterior": "gaussian", "teacher_forcing": False}
