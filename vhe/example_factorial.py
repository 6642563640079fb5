"""Two factors: a latent variable c for each content and s for each style; x has one content and one style.

    python example_factorial.py

x = c a + s b + noise, with c, s ~ N(0, 1). Each element belongs to two groups, that of its content and that of its
style. A fifth of all pairs of content and style is held out; its predictions are compared with the true elements.
"""

from dataclasses import dataclass

from training import run_from_command_line
from vhe import VHE, DataLoader, example_czx
from vhe.example_czx import NOISE, A, B, Qc, Recovered, correlation, shown, train

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

CONTENTS, STYLES, K_SHOT = 40, 40, 10


@dataclass
class Config(example_czx.Config):
    """The options of the example."""

    epochs: int = 60
    """passes over the data"""


class Px(example_czx.Px):
    """p(x|c, s)."""

    def forward(self, c: Tensor, s: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(c, s, x)


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


def main(config: Config) -> Recovered:
    """Train; print and return what was recovered."""
    torch.manual_seed(config.seed)
    x, content, style, c, s = draw()
    seen = torch.rand(len(x)) < 0.8
    model = VHE(encoder={"c": Qc(), "s": Qc()}, decoder=Px())  # c, s ~ N(0, 1) by default
    labels = {"c": content[seen], "s": style[seen]}
    loader = DataLoader(x[seen], labels, k_shot={"c": K_SHOT, "s": K_SHOT}, batch_size=100)
    bound = train(model, loader, config.epochs, lr=0.1)
    content_sets = torch.stack([x[seen & (content == i)][: 2 * K_SHOT] for i in range(CONTENTS)])  # (CONTENTS, 20, 3)
    style_sets = torch.stack([x[seen & (style == i)][: 2 * K_SHOT] for i in range(STYLES)])
    content, style, unseen = content[~seen], style[~seen], x[~seen]
    with torch.no_grad():
        sampled = model.sample(inputs={"c": content_sets[content], "s": style_sets[style]})
        error = unseen - model.decoder.mu(torch.cat([sampled.c, sampled.s], dim=1))
    return shown(
        {
            "log p(data)/N and its bound": (exact_log_p(x[seen], *labels.values()), bound),
            "correlation of contents' codes": (1.0, correlation(c[content], sampled.c[:, 0])),
            "correlation of styles' codes": (1.0, correlation(s[style], sampled.s[:, 0])),
            "noise": (NOISE, model.decoder.sigma()),
            "error in unseen pairs": (NOISE, error.square().mean().sqrt().item()),
        }
    )


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
