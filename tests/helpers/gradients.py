"""Many independent gradients of a loss, and how far two sets of them differ in standard errors."""

import math

import torch


def gradients(objective, inputs, n_chunks=100, n_rows=200, beta=1.0):
    """Gradients of the loss in independent chunks of one example's copies: (chunks, parameters)."""
    torch.manual_seed(1)
    copies = {name: x.expand(n_rows, -1) for name, x in inputs.items()}
    rows = []
    for _ in range(n_chunks):
        objective.zero_grad()
        objective(copies, beta).backward()
        rows.append(torch.cat([p.grad.flatten() for p in objective.parameters()]))
    return torch.stack(rows)


def z_scores(a, b):
    """z-scores of the mean difference of two sets of gradients with the same samples."""
    difference = a - b
    error = difference.std(dim=0) / math.sqrt(len(a))
    return difference.mean(dim=0).abs() / error.clamp(min=1e-12)
