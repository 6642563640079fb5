"""log p(x_m|z) by the shortest way, which tests compare with `common.execution.decoder`."""

import torch
from torch import Tensor

from common.execution.decoder import Decoder
from common.likelihoods import log_prob_of_observed


class PlainDecoder(Decoder):
    """Decodes everything at once, with gradients, one term after the other."""

    def __call__(self, z: Tensor, terms: Tensor | None = None, where: Tensor | None = None) -> dict[str, Tensor]:
        log_p = {name: torch.zeros_like(z[..., 0]) for name in self.model.modelled}
        for t, z_t in enumerate(z):
            for name in (name for name in self.model.modelled if name in self.batch.modalities):
                columns = self.model.modality[name].columns.slice
                scored = z.new_ones(*z_t.shape[:-1], columns.stop - columns.start, dtype=torch.bool)  # (..., B, n)
                if self.scorable is not None:
                    scored = scored & self.scorable[:, columns]
                if where is not None:
                    scored = scored & (where[t] if where.shape[-1] == 1 else where[t][..., columns])
                if terms is not None:
                    scored = scored & terms[t, columns].to(z.device)
                if scored.any():
                    given = self.batch.modalities
                    p, observed = self.model.decode(z_t, [name], given)[name], (self.batch.observed or {}).get(name)
                    density = log_prob_of_observed(name, p, given[name], observed)
                    log_p[name][t] = torch.where(scored, density.reshape(scored.shape), 0).sum(dim=-1)
        return log_p
