"""A modality: its columns of the mask, its decoder, the weight of its likelihood, and its part of z."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.data.batches import Columns, columns_of
from common.encoders_decoders import StackedDecoder, n_elements, zero_where_absent
from common.errors import require
from common.likelihoods import check_names

import torch
from torch import Tensor, nn


class DecoderRecord(NamedTuple):
    """What one decoder models, and what it is given beside z.

    key: the decoder's name in the model.
    models: the modalities that it decodes.
    given: the modalities that it sees beside z.
    stacked: whether it decodes each modality from its own z (`StackedDecoder`).
    """

    key: str
    models: tuple[str, ...]
    given: tuple[str, ...]
    stacked: bool


@dataclass(eq=False)
class Modality:
    """What the model, the objectives, the estimators and the metrics ask about a modality.

    name: the modality's name.
    columns: its columns of the mask (B, M): one, or n if it is a set of n like elements (B, n, ...).
    decoder: what decodes it; None if the model never decodes it (CVAE's label).
    n_shared: the number of latents that all modalities share, the first ones of z; None for all of z.
    private_latents: the indices of z that belong to it alone; empty if it has none.
    given: the modalities that its decoder sees beside z.
    is_set: whether it is a set of like elements, (B, n, ...).
    """

    name: str
    columns: Columns
    decoder: DecoderRecord | None = None
    n_shared: int | None = None
    private_latents: range = range(0)

    def __post_init__(self) -> None:
        self.given = self.decoder.given if self.decoder else ()
        self.is_set = self.columns.n_elements is not None

    def present(self, mask: Tensor) -> Tensor:
        """Which examples of a mask (..., M) have it: (...), for a set which elements: (..., n)."""
        return self.columns.of(mask)

    def part_of(self, z: Tensor) -> Tensor:
        """The latents that concern it, (..., D_m), of z (..., D)."""
        if self.n_shared is None:
            return z
        private = slice(self.private_latents.start, self.private_latents.stop)
        return torch.cat([z[..., : self.n_shared], z[..., private]], dim=-1)

    def spread(self, params: Tensor, latent_dim: int) -> Tensor:
        """Its expert's parameters (..., D_m) at their places in z, zeros elsewhere: (..., D)."""
        if self.n_shared is None:
            return params
        others = params.new_zeros(*params.shape[:-1], latent_dim - params.shape[-1])
        before = self.private_latents.start - self.n_shared
        shared, private = params[..., : self.n_shared], params[..., self.n_shared :]
        return torch.cat([shared, others[..., :before], private, others[..., before:]], dim=-1)


def modalities_of(
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    weights: Mapping[str, float],
    private: Mapping[str, int],
    latent_dim: int,
) -> dict[str, Modality]:
    """The modalities of a model, by name (see `MultimodalVAE`).

    Args:
        private: {name: number of private latents}.
        latent_dim: D, shared and private latents together; they lie in z in this order.

    Raises:
        InputError: a name that no modality can have (`check_names`); decoders or weights of modalities without an
            encoder, or negative weights; private latents of a modality without its own encoder, beside a joint encoder
            or decoder, or more than there are latents.
    """
    names = tuple(dict.fromkeys(name for key in encoder for name in key.split(",")))
    check_names(names)
    decoders = decoder_records(decoder)
    in_decoders = (name for record in decoders for name in (*record.models, *record.given))
    for what, named in (("decoders", in_decoders), ("weights", weights)):
        unknown = [name for name in named if name not in names]
        require(
            not unknown, f"{what} of unknown modalities: {', '.join(unknown)}; the encoders name {', '.join(names)}"
        )
    negative = {name: weight for name, weight in weights.items() if not weight >= 0}
    require(not negative, f"weights of likelihoods must not be negative, these are: {negative}")
    columns = columns_of({name: n_elements(encoder.get(name)) for name in names})
    if private:
        _check_private(private, encoder, decoders, columns)
    n_shared, start, modalities = n_shared_latents(latent_dim, private), 0, {}
    for name in names:
        private_latents = range(n_shared + start, n_shared + start + private.get(name, 0))
        start += len(private_latents)
        modalities[name] = Modality(
            name,
            columns[name],
            next((record for record in decoders if name in record.models), None),
            n_shared if private else None,
            private_latents,
        )
    return modalities


def decoder_records(decoder: Mapping[str, nn.Module]) -> list[DecoderRecord]:
    """The records of decoders whose keys are "m", "m|l" for p(x_m|z, x_l), or "a,b" for several modalities."""
    records = []
    for key, network in decoder.items():
        models, *given = key.split("|")
        stacked = isinstance(network, StackedDecoder)
        records.append(DecoderRecord(models, tuple(models.split(",")), tuple(given), stacked))
    return records


def _check_private(
    private: Mapping[str, int],
    encoder: Mapping[str, nn.Module],
    decoders: Sequence[DecoderRecord],
    columns: Mapping[str, Columns],
) -> None:
    """Raise InputError for private latents that the networks cannot have."""
    unfit = [name for name in private if name not in encoder or columns[name].n_elements is not None]
    require(
        not unfit,
        f"private latents need modalities with an encoder of their own that are not sets (got {', '.join(unfit)})",
    )
    encoders = [key for key, network in encoder.items() if "," in key and n_elements(network) is None]
    joint = {"an encoder": encoders, "a decoder": [record.key for record in decoders if len(record.models) > 1]}
    for what, keys in joint.items():
        require(not keys, f"private latents need {what} for each modality (got one for all of {' and '.join(keys)})")


def n_shared_latents(latent_dim: int, private: Mapping[str, int]) -> int:
    """The number of latents that private ones leave to all modalities.

    Raises:
        InputError: they leave none.
    """
    n_private = sum(private.values())
    n = latent_dim - n_private
    require(not private or n > 0, f"{n_private} private latents leave none of {latent_dim} to share: raise latent_dim")
    return n


def stack_values(
    names: tuple[str, ...], values: Mapping[str, Tensor], mask: Tensor | None, modalities: Mapping[str, Modality]
) -> Tensor:
    """The values {name: (B, ...)} of modalities of one shape, (B, n, ...), with zeros where one is absent."""
    like = next(values[name] for name in names if name in values)
    stacked = []
    for name in names:
        x = values.get(name)
        if x is None:
            x = torch.zeros_like(like)
        elif mask is not None:
            x = zero_where_absent(x, modalities[name].present(mask))
        stacked.append(x)
    return torch.stack(stacked, dim=1)
