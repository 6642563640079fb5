"""Strings given z: the decoder of characters and the distribution that teacher forcing makes of it."""

from itertools import product
from types import SimpleNamespace

import multimnist.model
from common.estimators import log_marginal
from multimnist import text
from multimnist.model import TextDecoder, TextEncoder, build
from multimnist.text import Autoregressive

import pytest
import torch

EVERY_STRING = torch.tensor(list(product(range(12), repeat=4)))  # (20736, 4)


@pytest.fixture
def decoder(monkeypatch):
    """A small one, with weights large enough for characters to depend on those before them."""
    monkeypatch.setattr(multimnist.model, "N_HIDDEN", 12)
    network = TextDecoder(3).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return network


def test_probabilities_of_all_strings_add_up_to_one(decoder):
    p = Autoregressive(decoder, torch.randn(2, 3, dtype=torch.float64))
    with torch.no_grad():
        log_p = p.log_prob(EVERY_STRING[:, None])  # (20736, 2)
    torch.testing.assert_close(log_p.logsumexp(dim=0), torch.zeros(2, dtype=torch.float64))


def test_strings_are_drawn_with_their_probabilities(decoder):
    p, n = Autoregressive(decoder, torch.randn(2, 3, dtype=torch.float64)), 40_000
    with torch.no_grad():
        log_p = p.log_prob(EVERY_STRING[:, None])  # (20736, 2)
        drawn = p.sample((n,))
        found = p.log_prob(drawn)
    assert drawn.shape == (n, 2, 4) and p.sample().shape == (2, 4)
    mean, error = (log_p.exp() * log_p).sum(dim=0), found.std(dim=0) / n**0.5
    assert ((found.mean(dim=0) - mean).abs() < 5 * error).all(), "the negative entropy, in nats"
    for b, most in enumerate(log_p.max(dim=0).values.exp().tolist()):
        share = (drawn[:, b] == EVERY_STRING[log_p[:, b].argmax()]).all(dim=1).double().mean().item()
        assert share == pytest.approx(most, abs=5 * (most / n) ** 0.5)


def test_the_mode_is_the_most_likely_of_all_strings(decoder, monkeypatch):
    z = torch.randn(6, 3, dtype=torch.float64)
    p = Autoregressive(decoder, z.view(2, 3, 3))
    with torch.no_grad():
        best = EVERY_STRING[p.log_prob(EVERY_STRING[:, None, None]).flatten(1).argmax(dim=0)]
        assert p.mode.shape == (2, 3, 4)
        monkeypatch.setattr(text, "BEAM", 12**3)  # wide enough to be exact
        assert p.mode.view(6, 4).equal(best)
        monkeypatch.setattr(text, "BEAM", 10)
        found, exact = p.log_prob(p.mode), p.log_prob(best.view(2, 3, 4))
        monkeypatch.setattr(text, "BEAM", 1)
        greedy = p.log_prob(p.mode)
    assert (found >= greedy).all() and (exact >= found).all()
    assert (exact > greedy).any(), "the search is needed"


def test_a_character_sees_those_before_it_alone(decoder):
    z, strings = torch.randn(5, 3, dtype=torch.float64), torch.randint(12, (5, 4))
    logits = decoder.teacher_forced(z, strings)
    for t in range(4):
        other = strings.clone()
        other[:, t] = (strings[:, t] + 1) % 12
        changed = decoder.teacher_forced(z, other)
        torch.testing.assert_close(changed[:, : t + 1], logits[:, : t + 1])
        assert t == 3 or not changed[:, t + 1].allclose(logits[:, t + 1])


def test_feedback_is_teacher_forcing_with_its_own_most_likely_characters(decoder):
    z = torch.randn(7, 3, dtype=torch.float64)
    logits = decoder(z)
    torch.testing.assert_close(logits, decoder.teacher_forced(z, logits.argmax(dim=-1)))


def test_strings_broadcast_over_samples_like_any_likelihood():
    model = (
        build(SimpleNamespace(n_latents=3, model="mvae", posterior="gaussian", teacher_forcing=True)).double().eval()
    )
    z, strings = torch.randn(4, 5, 3, dtype=torch.float64), torch.randint(12, (5, 4))
    log_p = model.decode(z, ["text"])["text"].log_prob(strings)
    alone = [[model.decode(z[k, b], ["text"])["text"].log_prob(strings[b]) for b in range(5)] for k in range(4)]
    torch.testing.assert_close(log_p, torch.stack([torch.stack(row) for row in alone]))
    shared = log_marginal(model, {"text": strings}, ("text",), given=(), n_samples=6)
    assert shared.shape == (5,) and (shared < 0).all()


def test_the_encoder_reads_the_whole_string():
    encoder = TextEncoder((4, 4))
    strings = torch.randint(12, (3, 4))
    for t in range(4):
        other = strings.clone()
        other[:, t] = (strings[:, t] + 1) % 12
        assert not encoder(other)[0].allclose(encoder(strings)[0]), t


def test_teacher_forcing_learns_strings():
    """A code of two characters, each string as likely: after training it is told from z alone."""
    torch.manual_seed(0)
    decoder = TextDecoder(2)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=5e-3)
    z = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    strings = torch.tensor([[1, 7, 7, 3], [4, 2, 11, 11], [11, 11, 11, 11]])
    for _ in range(60):
        optimizer.zero_grad()
        (-Autoregressive(decoder, z).log_prob(strings).mean()).backward()
        optimizer.step()
    decoder.eval()
    assert Autoregressive(decoder, z).mode.equal(strings)
    assert (Autoregressive(decoder, z).log_prob(strings) > -0.5).all()
