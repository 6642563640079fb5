"""The Variational Homoencoder without its framework: support sets drawn one element after the other, as the original
does, and the bound written out.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from vhe import VHE, Batch

import torch
from torch import Tensor


class Loader:
    """Batches of all examples in a random order, with support sets drawn with replacement."""

    def __init__(
        self, data: Tensor, labels: Mapping[str, Sequence[int]], k_shot: Mapping[str, int], batch_size: int
    ) -> None:
        self.data, self.labels, self.k_shot, self.batch_size = data, labels, k_shot, batch_size
        self.groups: dict[str, dict[int, list[int]]] = {name: {} for name in labels}
        for name, group_labels in labels.items():
            for i, label in enumerate(group_labels):
                self.groups[name].setdefault(label, []).append(i)

    def __iter__(self) -> Iterator[Batch]:
        order = list(range(len(self.data)))
        random.shuffle(order)
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            groups = {name: [self.groups[name][labels[i]] for i in index] for name, labels in self.labels.items()}
            inputs = {
                name: torch.stack(
                    [torch.stack([self.data[random.choice(group)] for _ in range(k)]) for group in groups[name]]
                )
                for name, k in self.k_shot.items()
            }
            sizes = {name: torch.tensor([float(len(group)) for group in chosen]) for name, chosen in groups.items()}
            yield Batch(torch.stack([self.data[i] for i in index]), inputs, sizes)


def bound(model: VHE, batch: Batch) -> Tensor:
    """The mean bound of a model with p(x|c, z) and q(z|x, c), computed from the model's networks only."""
    c, log_q_c = model.encoder["c"](batch.inputs["c"])
    z, log_q_z = model.encoder["z"](batch.inputs["z"], c)
    _, log_p = model.decoder(c, z, batch.target)
    kl_c, kl_z = log_q_c - standard_normal(c), log_q_z - standard_normal(z)
    return (log_p - kl_c / batch.sizes["c"] - kl_z / batch.sizes["z"]).mean()


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I): (B, D) -> (B,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)


def training_step(model: VHE) -> Callable[[Batch], None]:
    """A training step that maximises `bound`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        (-bound(model, batch)).backward()
        optimizer.step()

    return step
