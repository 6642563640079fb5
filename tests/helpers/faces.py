"""What the demos of faces have learnt."""

import torch
from torch import Tensor


def shares(inferred: Tensor, true: Tensor) -> tuple[float, float]:
    """The share of right attributes, both (N, 18), and that of always predicting the more frequent value."""
    true = true > 0.5
    more_frequent = true.float().mean(dim=0)
    return ((inferred > 0.5) == true).float().mean().item(), torch.maximum(
        more_frequent, 1 - more_frequent
    ).mean().item()


def explained(decoded: Tensor, true: Tensor) -> float:
    """The share of the images' variance around their mean image that the decoded ones explain."""
    return 1 - ((decoded - true).square().mean() / (true - true.mean(dim=0)).square().mean()).item()
