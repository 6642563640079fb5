"""What torchrun runs in tests/test_distributed.py: `-m tests.distributed_jobs OUT`."""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from common import distributed
from common.data import Examples
from common.distributions import DiagonalGaussian
from common.elbos import MvaeElbo
from common.steps import Step
from mnist.model import build

SIZES = (6, 5, 1)  # of batches: of two processes, both have as many, one has more, one has none


def gradients():
    """Gradients of batches of each size, of a model without noise; of the last one, only where both have labels."""
    DiagonalGaussian.rsample = lambda self, shape=(): self.mean.expand(*shape, *self.mean.shape)
    torch.manual_seed(0)
    options = {"n_latents": 4, "model": "mvae", "lambda_image": 1.0, "lambda_text": 2.0, "posterior": "gaussian"}
    model = build(SimpleNamespace(**options))
    n = sum(SIZES)
    mask = torch.ones(n, 2, dtype=torch.bool)
    mask[::3, 1] = False
    examples = Examples({"image": torch.rand(n, 1, 28, 28), "text": torch.randint(10, (n,))}, mask=mask)
    objective = MvaeElbo(model)
    step = Step(objective, torch.optim.SGD(objective.parameters(), lr=0.0))
    found = []
    for index in torch.randperm(n, generator=torch.Generator().manual_seed(1)).split(SIZES):
        step(examples, index[distributed.part()], len(index), 0.5)
        found.append([x.grad for x in objective.parameters()])
    return found


if __name__ == "__main__":
    distributed.start()
    rows = torch.arange(7.0).view(7, 1)[distributed.part()]
    found = {"gradients": gradients(), "rows": distributed.rows_of_all(rows), "world": distributed.world()}
    said = distributed.any_of(distributed.rank() == 1), distributed.any_of(False)
    if distributed.rank() == 0:
        torch.save(found | {"any": said}, Path(sys.argv[1]))
    print("process", distributed.rank())
    distributed.end()
