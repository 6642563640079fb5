"""What the demos of faces have learnt."""

import torch
from torch import Tensor


def shares(inferred: Tensor, true: Tensor) -> tuple[float, float]:
    """Shares of right attributes, both (N, 18), and of those that are right if the commoner value is always said."""
    true = true > 0.5
    commoner = true.float().mean(dim=0)
    return ((inferred > 0.5) == true).float().mean().item(), torch.maximum(commoner, 1 - commoner).mean().item()


def explained(decoded: Tensor, true: Tensor) -> float:
    """The share of the images' variance around their mean image that the decoded ones explain."""
    return 1 - ((decoded - true).square().mean() / (true - true.mean(dim=0)).square().mean()).item()
