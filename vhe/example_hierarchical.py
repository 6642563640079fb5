"""Three levels: a latent variable a for each family of classes, c for each class, and the elements x.

    python example_hierarchical.py

a ~ N(0, 1), c|a ~ N(2 a, 1), x|c ~ N(c, 0.5^2). The prior p(c|a) is a module too; it learns how much the classes
of a family differ. All is Gaussian, so that log p(data) is known exactly.
"""

from dataclasses import dataclass

from training import run_from_command_line
from vhe import VHE, DataLoader, example_czx
from vhe.example_czx import Linear, Recovered, shown, train

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

FAMILY_STD, CLASS_STD, ELEMENT_STD = 2.0, 1.0, 0.5  # standard deviation that each level adds to x
FAMILIES, CLASSES, ELEMENTS = 200, 8, 10  # families; classes in a family; elements in a class


@dataclass
class Config(example_czx.Config):
    """The options of the example."""

    epochs: int = 15
    """passes over the data"""


class Px(Linear):
    """p(x|c), whose mean is c."""

    sizes = 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Identity()

    def forward(self, c: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(c, x)


class Pc(Linear):
    """p(c|a)."""

    sizes = 1, 1

    def forward(self, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(a, c)


class Qa(Linear):
    """q(a|D) of a support set D (B, k, 1) of a family."""

    sizes = 1, 1

    def forward(self, inputs: Tensor, a: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs.mean(dim=1), a)


class Qc(Linear):
    """q(c|D, a) of a support set D (B, k, 1) of a class."""

    sizes = 2, 1

    def forward(self, inputs: Tensor, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(torch.cat([inputs.mean(dim=1), a], dim=1), c)


def draw() -> tuple[Tensor, Tensor, Tensor]:
    """Draw elements (N, 1); return them with the family and the class of each, (N,)."""
    classes = torch.arange(FAMILIES * CLASSES).repeat_interleave(ELEMENTS)
    families = classes // CLASSES
    a, c = torch.randn(FAMILIES, 1), torch.randn(FAMILIES * CLASSES, 1)
    x = FAMILY_STD * a[families] + CLASS_STD * c[classes] + ELEMENT_STD * torch.randn(len(classes), 1)
    return x, families, classes


def exact_log_p(x: Tensor) -> float:
    """Return log p(data)/N in nats: the elements of a family are jointly Gaussian."""
    n = CLASSES * ELEMENTS
    same_class = torch.kron(torch.eye(CLASSES), torch.ones(ELEMENTS, ELEMENTS))
    covariance = FAMILY_STD**2 + CLASS_STD**2 * same_class + ELEMENT_STD**2 * torch.eye(n)
    return MultivariateNormal(torch.zeros(n), covariance).log_prob(x.view(FAMILIES, n)).mean().item() / n


def main(config: Config) -> Recovered:
    """Train; print and return what was recovered."""
    torch.manual_seed(config.seed)
    x, families, classes = draw()
    model = VHE(encoder=[Qa(), Qc()], decoder=Px(), prior=Pc())  # a ~ N(0, 1) by default
    loader = DataLoader(x, labels={"a": families, "c": classes}, k_shot={"a": 20, "c": 8}, batch_size=100)
    bound = train(model, loader, config.epochs, lr=0.03)
    return shown(
        {
            "log p(data)/N and its bound": (exact_log_p(x), bound),
            "deviation of families": (FAMILY_STD, model.prior["c"].mu.weight.abs().item()),
            "of classes of a family": (CLASS_STD, model.prior["c"].sigma()),
            "of elements of a class": (ELEMENT_STD, model.decoder.sigma()),
        }
    )


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
