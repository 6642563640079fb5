"""Random states: a training's order of examples, what a checkpoint keeps, and draws beside it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import InputError
from common.execution import processes

import torch
from torch import Tensor

RandomState = dict[str, Tensor]  # by device: "cpu", "cuda"


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits n examples, (n,): the same for the same seed and epoch."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


@contextmanager
def fixed_noise(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from the seed inside; the caller's random state stays as it was, and so does every other GPU."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, which nothing restores
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def current(device: torch.device) -> RandomState:
    """The random state of this process."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def restore(saved: list[RandomState] | None, seed: int, epoch: int, batch: int, device: torch.device) -> None:
    """Restore the random states of a checkpoint; reseed if the number of processes changed.

    Args:
        saved: the states of all processes; None for a new run, in which several processes get a seed each.
        epoch, batch: the run's progress, which enters the new seed: a second reseeding draws anew.

    Raises:
        InputError: a saved state is not a random state.
    """
    world, rank = processes.world_size(), processes.rank()
    if saved and len(saved) == world:
        try:
            torch.set_rng_state(saved[rank]["cpu"])
            if device.type == "cuda" and "cuda" in saved[rank]:
                torch.cuda.set_rng_state(saved[rank]["cuda"], device)
        except (RuntimeError, TypeError, KeyError) as error:
            raise InputError(
                "the last checkpoint is damaged, rng is not a random state: choose another --save-dir"
            ) from error
    elif saved or world > 1:
        key = repr((seed, epoch, batch, world, rank))
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
