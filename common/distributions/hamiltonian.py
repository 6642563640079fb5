"""Hamiltonian Monte Carlo."""

from collections.abc import Callable

import torch
from torch import Tensor

LEAPS = 10  # most leapfrog steps in a move
STEP = 0.3  # initial step size, in units of the scale
ACCEPTED = 0.8  # mean acceptance probability that the step size is adapted to


@torch.no_grad()
def hamiltonian_chain(log_density: Callable[[Tensor], Tensor], z: Tensor, scale: Tensor, moves: int) -> Tensor:
    """Move points by Hamiltonian Monte Carlo: a Metropolis test of each move keeps the density invariant.

    (Neal 2011, arXiv 1206.1901, with masses 1 / scale^2.) In the first half of the moves, one step size for all points
    adapts to their mean acceptance probability: a step size for each point would depend on its position and bias
    the chain. Only the second half is kept.

    Args:
        log_density: z (..., D) -> its logarithm up to a constant, (...).
        z: where the chains start, (..., D).
        scale: about the standard deviation of each dimension, (..., D).
        moves: in a chain; an even number.

    Returns:
        the points after each kept move, (moves / 2, ..., D).
    """
    log_p, slope = _with_slope(log_density, z)
    step, kept = STEP, []
    for move in range(moves):
        start = torch.randn_like(z)
        leap = step * scale
        x, momentum = z, start + 0.5 * leap * slope
        # a random number: with a fixed one moves may go around and come back to where they started (Neal, section 3.2)
        for _ in range(int(torch.randint((LEAPS + 1) // 2, LEAPS + 1, ()))):
            x = x + leap * momentum
            new_log_p, new_slope = _with_slope(log_density, x)
            momentum = momentum + leap * new_slope
        momentum = momentum - 0.5 * leap * new_slope
        energy_lost = 0.5 * (start.square() - momentum.square()).sum(dim=-1)
        log_ratio = (new_log_p - log_p + energy_lost).nan_to_num(nan=-torch.inf)
        accepted = log_ratio > -torch.empty_like(log_ratio).exponential_()
        z = torch.where(accepted.unsqueeze(-1), x, z)
        slope = torch.where(accepted.unsqueeze(-1), new_slope, slope)
        log_p = torch.where(accepted, new_log_p, log_p)
        if move < moves // 2:
            step = step * (log_ratio.clamp(max=0).exp().mean() - ACCEPTED).exp()
        else:
            kept.append(z)
    return torch.stack(kept)


def _with_slope(log_density: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The log-density of z (..., D), (...), and its gradient (..., D), without graphs."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        log_p = log_density(z)
        (slope,) = torch.autograd.grad(log_p.sum(), z)
    return log_p.detach(), slope
