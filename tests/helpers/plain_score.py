"""log p(x_m|z) by the shortest way, which tests compare with `common.execution.score`."""

from common.likelihoods import log_prob

import torch


def score_plainly(model, batch, z, rows):
    """Decode everything at once, with gradients, one term after the other."""
    log_p = {name: torch.zeros_like(z[..., 0]) for name in model.modelled}
    for t, z_t in enumerate(z.unbind(1)):
        for name in (name for name in model.modelled if name in batch.modalities):
            columns = model.modality[name].columns.slice
            scored = rows.subsets[t, columns].expand(len(batch), -1)
            if rows.scored is not None:
                scored = scored & rows.scored[t][..., columns]
            if scored.any():
                p, observed = model.decode(z_t, [name], batch.modalities)[name], (batch.observed or {}).get(name)
                density = log_prob(name, p, batch.modalities[name], 2, observed)
                log_p[name][:, t] = torch.where(scored, density.reshape(len(z), *scored.shape), 0).sum(dim=-1)
    return log_p
