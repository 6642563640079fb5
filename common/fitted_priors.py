"""A density fitted to the latents of a trained model, to draw z from in place of the prior, and its file.

(The second stage of SBM-VAE, arXiv 2305.15708, and MLD, arXiv 2306.04445.) The latents are one draw of q(z|X) for each
training example, (N, D). A model of mmvm decodes each modality from its own latents. There they are one draw of each
expert, (N, M, D), and the density is of all M together.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.checkpoints import check_fit, load_config
from common.data.batches import Batch, Examples
from common.errors import require, require_names
from common.execution import processes
from common.io import folder_of, load_tensors, save_tensors
from common.latent_priors import KINDS, Kind, LatentPrior
from common.models.objectives import decodes_own_latents
from common.multimodal_vae import MultimodalVAE

import msgspec
import torch
from torch import Tensor, nn

BATCH_SIZE = 500


@torch.no_grad()
def latents_of(model: MultimodalVAE, examples: Examples, own: bool) -> Tensor:
    """One draw of q(z|X) for each of N examples, (N, D); if `own`, one of each modality's expert, (N, M, D)."""

    def drawn(rows: Tensor) -> dict[str, Tensor]:
        batch = examples[rows]
        return {"z": own_latents(model, batch, model.modalities) if own else model.posterior(batch).sample()}

    return processes.map_rows(len(examples), BATCH_SIZE, drawn, "latents")["z"]


def own_latents(model: MultimodalVAE, inputs: Mapping[str, Tensor] | Batch, given: Sequence[str]) -> Tensor:
    """A draw of each given modality's expert, (B, M, D); zeros for the others."""
    require_names(given)
    drawn = {name: model.posterior(inputs, (name,)).sample() for name in given}
    nothing = torch.zeros_like(drawn[given[0]])
    return torch.stack([drawn.get(name, nothing) for name in model.modalities], dim=1)


class FittedFile(msgspec.Struct):
    """What latent_prior_KIND.pt holds; `model` is the checksum of the model's parameters."""

    model: int
    event_shape: list[int]
    state_dict: dict[str, Tensor]


def path_of(model: Path, kind: Kind) -> Path:
    """Where a density lies: beside the model."""
    return folder_of(model) / f"latent_prior_{kind}.pt"


def save(prior: LatentPrior, model: MultimodalVAE, path: Path) -> None:
    """Write a density atomically; InputError if the file cannot be written."""
    state_dict = {name: x.cpu() for name, x in prior.state_dict().items()}
    save_tensors(path, {"model": checksum(model), "event_shape": [*prior.event_shape], "state_dict": state_dict})


def load(run: Path, kind: Kind, model: MultimodalVAE) -> LatentPrior:
    """The density that `tools.latent_prior` wrote beside a model (a file or a run's folder), on the model's device.

    Raises:
        InputError: its file is missing, damaged or of another model.
    """
    path, remedy = path_of(run, kind), f"in the root, python -m tools.latent_prior {run} --kind {kind} makes it"
    saved = load_tensors(path, FittedFile, remedy, remedy)
    own = (len(model.modalities),) if decodes_own_latents(load_config(run)) else ()
    given, shape = tuple(saved.event_shape), (*own, model.latent_dim)
    require(given == shape, f"{path} is of latents {given}, the model has {shape}: {remedy}")
    require(saved.model == checksum(model), f"{path} was fitted to another model, or before more training: {remedy}")
    prior = KINDS[kind](shape)
    check_fit(saved.state_dict, prior, f"{path} is damaged", remedy)
    prior.load_state_dict(saved.state_dict)
    return prior.to(model.device).eval()


def checksum(model: nn.Module) -> int:
    """CRC-32 of a model's parameters and buffers."""
    return zlib.crc32(b"".join(x.cpu().numpy().tobytes() for _, x in sorted(model.state_dict().items())))
