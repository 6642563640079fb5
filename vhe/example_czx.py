"""Elements in classes: a latent variable c for each class and z for each element, as in the original's example.

    python example_czx.py

x = c a + z b + noise, with c, z ~ N(0, 1). All is linear and Gaussian, so that log p(data) is known exactly. The bound
stays below it by (n - k)/2kn = 0.05 nats per element, since q(c|D) sees k of a class's n elements. At the end stand
predictive samples: new elements of a class, given five of it.
"""

from dataclasses import dataclass

from training import run_from_command_line
from vhe import VHE, DataLoader

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import softplus

A, B, NOISE = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 0.5, 1.0]), 0.3
CLASSES, ELEMENTS, K_SHOT = 200, 10, 5
Recovered = dict[str, tuple[float, float]]  # the true and the recovered value of each quantity


@dataclass
class Config:
    """The options of the example."""

    epochs: int = 30
    """passes over the data"""
    seed: int = 0
    """seed of the data, the parameters and the random draws"""


class Linear(nn.Module):
    """N(W inputs + w, softplus(V inputs + v)^2); `sizes` are those of the inputs and of the value."""

    sizes: tuple[int, int]

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.unscaled = nn.Linear(*self.sizes), nn.Linear(*self.sizes)
        nn.init.zeros_(self.unscaled.weight)  # sigma starts the same for all inputs: otherwise learning takes longer

    def draw_or_score(self, inputs: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the value (B, D), drawn unless it is given, and its log-density (B,), nats."""
        dist = Normal(self.mu(inputs), softplus(self.unscaled(inputs)))
        value = dist.rsample() if value is None else value
        return value, dist.log_prob(value).sum(dim=1)

    def sigma(self) -> float:
        """Return sigma where the inputs are 0, the mean over the value's dimensions."""
        return softplus(self.unscaled.bias).mean().item()


class Px(Linear):
    """p(x|c, z)."""

    sizes = 2, len(A)

    def forward(self, c: Tensor, z: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(torch.cat([c, z], dim=1), x)


class Qc(Linear):
    """q(c|D) of a support set D (B, k, 3)."""

    sizes = len(A), 1

    def forward(self, inputs: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs.mean(dim=1), c)


class Qz(Linear):
    """q(z|x, c) of an element x, as a support set (B, 1, 3)."""

    sizes = len(A) + 1, 1

    def forward(self, inputs: Tensor, c: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(torch.cat([inputs.squeeze(1), c], dim=1), z)


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw elements (N, 3); return them with the class of each (N,) and the true codes c (CLASSES,) and z (N,)."""
    classes = torch.arange(CLASSES).repeat_interleave(ELEMENTS)
    c, z = torch.randn(CLASSES), torch.randn(len(classes))
    x = c[classes, None] * A + z[:, None] * B + NOISE * torch.randn(len(classes), len(A))
    return x, classes, c, z


def exact_log_p(x: Tensor) -> float:
    """Return log p(data)/N in nats: the elements of a class are jointly Gaussian."""
    shared = torch.kron(torch.ones(ELEMENTS, ELEMENTS), A.outer(A))
    individual = torch.kron(torch.eye(ELEMENTS), B.outer(B) + NOISE**2 * torch.eye(len(A)))
    class_distribution = MultivariateNormal(torch.zeros(ELEMENTS * len(A)), shared + individual)
    return class_distribution.log_prob(x.view(CLASSES, -1)).mean().item() / ELEMENTS


def train(model: VHE, loader: DataLoader, epochs: int, lr: float) -> float:
    """Train with a learning rate that falls to 0; return the mean bound of ten passes, nats an element."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, epochs * len(loader))
    for _ in range(epochs):
        for batch in loader:
            bound = model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        bounds = [model.score(batch.inputs, batch.sizes, x=batch.target).item() for _ in range(10) for batch in loader]
    return sum(bounds) / len(bounds)


def correlation(x: Tensor, y: Tensor) -> float:
    """Return the absolute correlation of two series (N,); the sign of a code is arbitrary."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1].abs().item()


def shown(recovered: Recovered) -> Recovered:
    """Print a table, and return what it shows."""
    print(f"{'':31}{'truth':>9}{'recovered':>11}")
    for name, (truth, value) in recovered.items():
        print(f"{name:31}{truth:9.3f}{value:11.3f}")
    return recovered


def main(config: Config) -> Recovered:
    """Train; print and return what was recovered."""
    torch.manual_seed(config.seed)
    x, classes, c, z = draw()
    model = VHE(encoder=[Qc(), Qz()], decoder=Px())  # c, z ~ N(0, 1) by default
    loader = DataLoader(x, labels={"c": classes, "z": range(len(x))}, k_shot={"c": K_SHOT, "z": 1}, batch_size=100)
    bound = train(model, loader, config.epochs, lr=0.05)
    elements = x.view(CLASSES, ELEMENTS, -1)
    with torch.no_grad():
        sampled = model.sample(inputs={"c": elements[classes], "z": x[:, None]})
        new = model.sample(inputs={"c": elements[:, :K_SHOT].repeat_interleave(ELEMENTS, dim=0)}).x  # z from the prior
    recovered = shown(
        {
            "log p(data)/N and its bound": (exact_log_p(x), bound),
            "correlation of c's codes": (1.0, correlation(c[classes], sampled.c[:, 0])),
            "correlation of z's codes": (1.0, correlation(z, sampled.z[:, 0])),
            "noise": (NOISE, model.decoder.sigma()),
            "spread of a class's elements": tuple((y - c[classes, None] * A).std().item() for y in (x, new)),
        }
    )
    for title, rows in (("given elements of a class", x), ("new elements of it", new)):
        print(f"\n{title}", *("  ".join(f"{value:6.2f}" for value in row) for row in rows[:K_SHOT].tolist()), sep="\n")
    return recovered


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
