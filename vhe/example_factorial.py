"""Two factors: a latent variable c for each content and s for each style; x has one content and one style.

    python example_factorial.py

x = c a + s b + noise, with c, s ~ N(0, 1). Each element belongs to two groups, that of its content and that of its
style. A fifth of all pairs of content and style is held out; its predictions are compared with the true elements.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from training import run_from_command_line
from vhe import VHE, DataLoader

A, B, NOISE = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 0.5, 1.0]), 0.3
CONTENTS, STYLES, K_SHOT = 40, 40, 10


@dataclass
class Config:
    """The options of the example."""

    epochs: int = 60
    """passes over the data"""
    seed: int = 0
    """seed of the data, the parameters and the random draws"""


def normal(mu: Tensor, log_sigma: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the value (B, D), drawn unless it is given, and its log-density (B,), nats."""
    dist = Normal(mu, log_sigma.exp())
    value = dist.rsample() if value is None else value
    return value, dist.log_prob(value).sum(dim=1)


class Px(nn.Module):
    """p(x|c, s)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.log_sigma = nn.Linear(2, len(A)), nn.Parameter(torch.zeros(1))

    def forward(self, c: Tensor, s: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return normal(self.mu(torch.cat([c, s], dim=1)), self.log_sigma, x)


class Q(nn.Module):
    """q(c|D) of a content's support set D (B, k, 3), or q(s|D) of a style's."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.log_sigma = nn.Linear(len(A), 1), nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return normal(self.mu(inputs.mean(dim=1)), self.log_sigma, value)


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw an element of each pair, (N, 3); return them with the content and the style of each (N,) and the true codes.

    The codes are c (CONTENTS,) and s (STYLES,).
    """
    content, style = torch.cartesian_prod(torch.arange(CONTENTS), torch.arange(STYLES)).T
    c, s = torch.randn(CONTENTS), torch.randn(STYLES)
    x = c[content, None] * A + s[style, None] * B + NOISE * torch.randn(len(content), len(A))
    return x, content, style, c, s


def exact_log_p(x: Tensor, content: Tensor, style: Tensor) -> float:
    """Return log p(data)/N in nats: all elements are jointly Gaussian."""
    same_content, same_style = content[:, None] == content, style[:, None] == style
    covariance = torch.kron(same_content.float(), A.outer(A)) + torch.kron(same_style.float(), B.outer(B))
    covariance += NOISE**2 * torch.eye(x.numel())
    return MultivariateNormal(torch.zeros(x.numel()), covariance).log_prob(x.flatten()).item() / len(x)


def correlation(x: Tensor, y: Tensor) -> float:
    """Return the absolute correlation of two series (N,); the sign of a code is arbitrary."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1].abs().item()


def main(config: Config) -> dict[str, tuple[float, float]]:
    """Train; print and return each quantity with its true and its recovered value: {name: (truth, recovered)}."""
    torch.manual_seed(config.seed)
    x, content, style, c, s = draw()
    seen = torch.rand(len(x)) < 0.8
    model = VHE(encoder={"c": Q(), "s": Q()}, decoder=Px())  # c, s ~ N(0, 1) by default
    labels = {"c": content[seen], "s": style[seen]}
    loader = DataLoader(x[seen], labels, k_shot={"c": K_SHOT, "s": K_SHOT}, batch_size=100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, config.epochs * len(loader))
    for _ in range(config.epochs):
        for batch in loader:
            bound = model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            schedule.step()
    content_sets = torch.stack([x[seen & (content == i)][: 2 * K_SHOT] for i in range(CONTENTS)])  # (CONTENTS, 20, 3)
    style_sets = torch.stack([x[seen & (style == i)][: 2 * K_SHOT] for i in range(STYLES)])
    content, style, unseen = content[~seen], style[~seen], x[~seen]
    with torch.no_grad():
        bounds = [model.score(batch.inputs, batch.sizes, x=batch.target).item() for _ in range(10) for batch in loader]
        sampled = model.sample(inputs={"c": content_sets[content], "s": style_sets[style]})
        error = unseen - model.decoder.mu(torch.cat([sampled.c, sampled.s], dim=1))
    recovered = {
        "log p(data)/N and its bound": (exact_log_p(x[seen], *labels.values()), sum(bounds) / len(bounds)),
        "correlation of contents' codes": (1.0, correlation(c[content], sampled.c[:, 0])),
        "correlation of styles' codes": (1.0, correlation(s[style], sampled.s[:, 0])),
        "noise": (NOISE, model.decoder.log_sigma.exp().item()),
        "error in unseen pairs": (NOISE, error.square().mean().sqrt().item()),
    }
    print(f"{'':31}{'truth':>9}{'recovered':>11}")
    for name, (truth, value) in recovered.items():
        print(f"{name:31}{truth:9.3f}{value:11.3f}")
    return recovered


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
