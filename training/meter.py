"""Running means of the bound in training and evaluation."""

import math

import torch
from torch import Tensor

from common import distributed
from common.errors import Diverged
from common.objectives.base import Bound

DIVERGED = (
    "checkpoints so far are kept: try a smaller --lr in another --save-dir, or look for extreme values in the data"
)


class Meter:
    """Running means of a bound and its terms over the examples of all processes, in nats.

    Sums wait on the device until `check` reads them, so that a GPU need not wait after each batch.

    Args:
        sums, n: the bound and its terms, summed over n examples that were seen before.
    """

    def __init__(self, sums: dict[str, float] | None = None, n: int = 0) -> None:
        self.sums, self.n = dict(sums or {}), n
        self.names = list(self.sums)
        self.pending: list[Tensor] = []  # sums of each batch since the last check and its norm, (1 + terms + 1,)
        self.n_pending = 0

    def add(self, bound: Bound, n: int, norm: Tensor | None = None) -> None:
        """Add this process's n examples of a batch, and the norm of the batch's gradient."""
        self.names = ["bound", *bound.terms]
        self.n_pending += n
        sums = torch.stack([bound.value, *bound.terms.values()]).detach().sum(dim=1)
        self.pending.append(torch.cat([sums, (sums.new_zeros(()) if norm is None else norm)[None].to(sums)]))

    def check(self, when: str) -> dict[str, float]:
        """Return the means so far. All processes must call it at the same batches.

        Raises:
            InputError: a value is not finite; the error names `when` and the terms of the first such batch.
        """
        nothing, names = torch.zeros(0, len(self.names) + 1), [*self.names, "norm of the gradient"]
        sums = (torch.stack(self.pending) if self.pending else nothing).double().cpu()  # (batches, 1 + terms + 1)
        total = distributed.sum_over_processes(torch.cat([sums.sum(dim=0), torch.tensor([self.n_pending]).double()]))
        suspect = [*sums[~sums.isfinite().all(dim=1)], total[:-1]][0].tolist()
        broken = [f"{name} = {x}" for name, x in zip(names, suspect, strict=True) if not math.isfinite(x)]
        if broken:
            raise Diverged(f"the loss is not finite {when}: {', '.join(broken)}; {DIVERGED}")
        for name, value in zip(self.names, total.tolist()[:-2], strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n += int(total[-1])
        self.pending.clear()
        self.n_pending = 0
        return {name: value / self.n for name, value in self.sums.items()}
