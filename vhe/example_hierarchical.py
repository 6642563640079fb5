"""Three levels: a latent variable a of each family of classes, c of each class, and the elements x.

    python example_hierarchical.py

a ~ N(0, 1), c|a ~ N(2 a, 1), x|c ~ N(c, 0.5^2). The prior p(c|a) is a module as well, and what it learns is how far
classes of a family differ. All is Gaussian, so that log p(data) is known exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from common import runs
from vhe import VHE, DataLoader

OF_FAMILIES, OF_CLASSES, OF_ELEMENTS = 2.0, 1.0, 0.5  # standard deviations of x that each level adds
FAMILIES, CLASSES, ELEMENTS, DIMENSIONS = 100, 8, 10, 2  # families, classes of each, elements of each; of a, c and x


@dataclass
class Config:
    epochs: int = 15
    """passes over the data"""
    seed: int = 0
    """of the data, the parameters and the draws"""


class Gaussian(nn.Module):
    """N(scale * mean, sigma^2), the scale 1 unless it is learned."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.scale, self.log_sigma = nn.Parameter(torch.ones(1), learned), nn.Parameter(torch.zeros(1))

    def of(self, mean: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
        dist = Normal(self.scale * mean, self.log_sigma.exp())
        value = dist.rsample() if value is None else value
        return value, dist.log_prob(value).sum(dim=1)


class Px(Gaussian):  # p(x|c), whose mean is c
    def forward(self, c: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of(c, x)


class Pc(Gaussian):  # p(c|a)
    def forward(self, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of(a, c)


class Qa(Gaussian):  # q(a|D), of a support set D (B, k, 2) of a family
    def forward(self, inputs: Tensor, a: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of(inputs.mean(dim=1), a)


class Qc(Gaussian):  # q(c|D, a), of a support set D (B, k, 2) of a class
    def __init__(self) -> None:
        super().__init__()
        self.of_a = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of(inputs.mean(dim=1) + self.of_a * a, c)


def draw() -> tuple[Tensor, Tensor, Tensor]:
    """Elements (N, 2), and the family and the class of each (N,)."""
    classes = torch.arange(FAMILIES * CLASSES).repeat_interleave(ELEMENTS)
    families = classes // CLASSES
    a, c = torch.randn(FAMILIES, DIMENSIONS), torch.randn(FAMILIES * CLASSES, DIMENSIONS)
    x = OF_FAMILIES * a[families] + OF_CLASSES * c[classes] + OF_ELEMENTS * torch.randn(len(classes), DIMENSIONS)
    return x, families, classes


def exact_log_p(x: Tensor) -> float:
    """log p(data)/N in nats: the elements of a family are one Gaussian in each dimension."""
    n = CLASSES * ELEMENTS
    of_class = torch.kron(torch.eye(CLASSES), torch.ones(ELEMENTS, ELEMENTS))
    covariance = OF_FAMILIES**2 + OF_CLASSES**2 * of_class + OF_ELEMENTS**2 * torch.eye(n)
    of_a_family = MultivariateNormal(torch.zeros(n), covariance)
    return of_a_family.log_prob(x.view(FAMILIES, n, DIMENSIONS).mT).sum().item() / len(x)


def main(config: Config) -> dict[str, tuple[float, float]]:
    """Train; print and return what is true beside what was recovered."""
    torch.manual_seed(config.seed)
    x, families, classes = draw()
    model = VHE(encoder=[Qa(), Qc()], decoder=Px(learned=False), prior=Pc())  # a ~ N(0, I) by default
    loader = DataLoader(x, labels={"a": families, "c": classes}, k_shot={"a": 20, "c": 8}, batch_size=100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, config.epochs * len(loader))
    for _ in range(config.epochs):
        for batch in loader:
            bound = model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        bounds = [model.score(batch.inputs, batch.sizes, x=batch.target).item() for _ in range(10) for batch in loader]
    recovered = {
        "log p(data)/N and its bound": (exact_log_p(x), sum(bounds) / len(bounds)),
        "deviation of families": (OF_FAMILIES, model.prior["c"].scale.abs().item()),
        "of classes of a family": (OF_CLASSES, model.prior["c"].log_sigma.exp().item()),
        "of elements of a class": (OF_ELEMENTS, model.decoder.log_sigma.exp().item()),
    }
    print(f"{'':28}{'truth':>9}{'recovered':>11}")
    for name, (truth, value) in recovered.items():
        print(f"{name:28}{truth:9.3f}{value:11.3f}")
    return recovered


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
