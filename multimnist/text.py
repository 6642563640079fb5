"""Autoregressive distribution p(text|z), for training with teacher forcing."""

from multimnist.data import N_CHARACTERS
from multimnist.options import LENGTH

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

BEAM = 10  # strings that the beam search for the most likely one keeps at each character


class Autoregressive(Distribution):
    r"""Distribution over strings of 4 characters (int64): prod_t p(c_t|c_1, ..., c_(t-1), z).

    It has no `logits`: those of a character depend on the ones before it.

    Args:
        network: gives the logits of each character given the previous ones (`multimnist.model.TextDecoder`).
        z: (..., D); the batch shape is (...).
    """

    def __init__(self, network: nn.Module, z: Tensor) -> None:
        super().__init__(z.shape[:-1], torch.Size([LENGTH]), validate_args=False)
        self.network, self.z = network, z

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of value (..., 4) in nats, in the broadcast shape of value and z."""
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        text = value.expand(*shape, LENGTH).reshape(-1, LENGTH)
        z = self.z.expand(*shape, -1).reshape(len(text), -1)
        log_p = self.network.teacher_forced(z, text).log_softmax(dim=-1)  # (N, 4, C)
        return log_p.gather(-1, text[..., None]).sum(dim=(-2, -1)).view(shape)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draw strings (*sample_shape, ..., 4), each character given those before it."""
        shape = self._extended_shape(sample_shape)
        z = self.z.expand(*shape[:-1], -1).reshape(-1, self.z.shape[-1])
        text, state = self.network.sos(z), self.network.state(z)  # (N, 1), (layers, N, H)
        with torch.no_grad():
            for _ in range(LENGTH):
                logits, state = self.network.continued(z, text[:, -1:], state)
                text = torch.cat([text, Categorical(logits=logits).sample()], dim=1)
        return text[:, 1:].view(shape)

    @property
    def mode(self) -> Tensor:
        """Return the most likely string (..., 4) that a beam search finds."""
        z = self.z.reshape(-1, self.z.shape[-1])
        text, state = self.network.sos(z)[:, None], self.network.state(z)  # (N, 1, 1), (layers, N, H)
        log_p = z.new_zeros(len(z), 1)
        rows = torch.arange(len(z), device=z.device)[:, None]
        for _ in range(LENGTH):
            beams = text.shape[1]
            logits, state = self.network.continued(
                z.repeat_interleave(beams, dim=0), text[..., -1].reshape(-1, 1), state
            )
            longer = log_p[..., None] + logits.log_softmax(dim=-1).view(len(z), beams, -1)
            log_p, best = longer.flatten(1).topk(min(BEAM, beams * N_CHARACTERS))  # (N, beams)
            parent, character = best // N_CHARACTERS, best % N_CHARACTERS
            text = torch.cat([text[rows, parent], character[..., None]], dim=-1)
            state = state[:, (beams * rows + parent).flatten()]
        return text[:, 0, 1:].view(*self.batch_shape, LENGTH)


class TeacherForcedLikelihood(nn.Module):
    """Likelihood of strings given z (N, D): `Autoregressive`, whose network sees the true previous characters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Autoregressive:
        """Return p(text|z)."""
        return Autoregressive(self.network, z)

    def point(self, p: Autoregressive) -> Tensor:
        """Return the most likely string (..., 4)."""
        return p.mode
