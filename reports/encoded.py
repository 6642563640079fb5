"""Examples after their encoders, from which q(z|x_S) of every subset S follows without running one again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from common import distributed
from common.data.batches import Examples, columns_mask, n_columns
from common.multimodal_vae import MultimodalVAE
from reports.metrics import BATCH_SIZE


@dataclass(frozen=True)
class Encoded:
    """N labelled examples, and what the model's encoders give for them.

    model: whose encoders they are.
    examples: of the model's modalities, on its device.
    labels: what they show, (N, G) int64, on the CPU.
    params: the experts' parameters, each (N, M, D), on the CPU.
    present: which modalities the examples have, (N, M) bool, on the CPU.
    """

    model: MultimodalVAE
    examples: Examples
    labels: Tensor
    params: tuple[Tensor, ...]
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def posterior(self, rows: Tensor, given: Sequence[str]) -> Distribution:
        """The q(z|x_given) to generate from, for the examples in rows (B,); the prior if nothing is given."""
        if not given:
            return self.model.prior().expand((len(rows),))
        device = self.examples.device
        params = tuple(p[rows].movedim(1, 0).to(device) for p in self.params)  # (M, B, D)
        mask = self.present[rows] & columns_mask(given, self.model.columns)
        return self.model.conditional(params, mask.to(device))

    def first(self, n: int) -> "Encoded":
        """The first n examples, or all if they are fewer."""
        rows = slice(n)
        params = tuple(p[rows] for p in self.params)
        return Encoded(self.model, self.examples.take(rows), self.labels[rows], params, self.present[rows])

    def point(self, rows: Tensor, given: Sequence[str]) -> Tensor:
        """The mean of q(z|x_given) for each example in rows (B,): (B, D).

        For a mixture it is the mean of one component, drawn for each example (as in MoPoE's code): the average over the
        components may be a z that none of them generates.
        """
        family, q = self.model.variational_posterior, self.posterior(rows, given)
        return family.point(family.drawn_component(q) if given else q)

    def sample_and_point(self, rows: Tensor, given: Sequence[str]) -> tuple[Tensor, Tensor]:
        """One z of q(z|x_given) for each example in rows (B,), and `point`: each (B, D)."""
        family, q = self.model.variational_posterior, self.posterior(rows, given)
        return family.sample_and_point(q) if given else (q.sample(), family.point(q))

    @torch.no_grad()
    def points(self, given: Sequence[str]) -> Tensor:
        """The points of all examples, (N, D), on the CPU."""

        def point(rows: Tensor) -> dict[str, Tensor]:
            return {"z": self.point(rows, given).cpu()}

        return distributed.map_rows(len(self), BATCH_SIZE, point)["z"]


@torch.no_grad()
def encode(model: MultimodalVAE, examples: Examples, labels: Tensor) -> Encoded:
    """Run each encoder once on N examples of the model's modalities; labels: what they show, (N, G)."""
    examples = examples.to(model.device)

    def experts(rows: Tensor) -> dict[str, Tensor]:
        batch = model.observe(examples[rows])
        present = (
            torch.ones(len(rows), n_columns(model.columns), dtype=torch.bool) if batch.mask is None else batch.mask
        )
        params = {str(i): p.movedim(0, 1).cpu() for i, p in enumerate(model.experts(batch))}
        return params | {"present": present.cpu()}

    rows = distributed.map_rows(len(examples), BATCH_SIZE, experts, "encoders")
    present = rows.pop("present")
    return Encoded(model, examples, labels.cpu(), tuple(rows.values()), present)
