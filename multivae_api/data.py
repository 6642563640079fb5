"""MultiVae's objects around a model: outputs with named values, datasets, and base classes of networks."""

from collections.abc import Mapping

from common.data.records import Record
from common.errors import require

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

BaseEncoder = BaseDecoder = nn.Module  # MultiVae's networks inherit from its own classes, ours from any module


class ModelOutput(Record):
    """Named values, as attributes, as items, and by position: output.z, output["z"], output[0]."""

    def __getitem__(self, key: str | int | slice) -> object:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[object, ...]:
        """The values in their order."""
        return tuple(self.values())


DatasetOutput = ModelOutput  # MultiVae has a class of the same behaviour for what datasets return


class MultimodalBaseDataset(Dataset):
    """Examples with all their modalities. An index gives a DatasetOutput with `data` and, if there are any, `labels`.

    Args:
        data: {name: (N, ...)}, tensors or NumPy arrays.
        labels: (N, ...), which no model reads.

    Raises:
        InputError: modalities of different lengths.
    """

    def __init__(self, data: Mapping[str, Tensor | np.ndarray], labels: Tensor | np.ndarray | None = None) -> None:
        self.data = {name: torch.as_tensor(x) for name, x in data.items()}
        self.labels = labels
        sizes = {name: len(x) for name, x in data.items()} | ({} if labels is None else {"labels": len(labels)})
        require(len(set(sizes.values())) == 1, f"all modalities need the same number of examples (got {sizes})")

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, index: object) -> DatasetOutput:
        output = DatasetOutput(data={name: x[index] for name, x in self.data.items()})
        if self.labels is not None:
            output.labels = self.labels[index]
        return output


class IncompleteDataset(MultimodalBaseDataset):
    """Examples that lack modalities. An index gives a DatasetOutput with `data`, `masks` and, if any, `labels`.

    Args:
        data: {name: (N, ...)}, with any values where a modality is absent.
        masks: {name: (N,) bool}, True where an example has the modality.
        labels: (N, ...), which no model reads.

    Raises:
        InputError: modalities of different lengths, or masks that do not fit them.
    """

    def __init__(
        self,
        data: Mapping[str, Tensor | np.ndarray],
        masks: Mapping[str, Tensor | np.ndarray],
        labels: Tensor | np.ndarray | None = None,
    ) -> None:
        super().__init__(data, labels)
        self.masks = {name: torch.as_tensor(x) for name, x in masks.items()}
        require(
            set(self.masks) == set(self.data),
            f"masks are given for {', '.join(self.masks)}, data for {', '.join(self.data)}: both need all modalities",
        )
        check_masks(self.masks, {name: (len(x),) for name, x in self.data.items()})

    def __getitem__(self, index: object) -> DatasetOutput:
        output = super().__getitem__(index)
        output.masks = {name: x[index] for name, x in self.masks.items()}
        return output


def check_masks(masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int]]) -> None:
    """Raise InputError for masks that are not of these modalities, have other shapes (B,), or values but 0 and 1."""
    unknown = [name for name in masks if name not in shapes]
    require(not unknown, f"masks of unknown modalities: {', '.join(unknown)}; known: {', '.join(shapes)}")
    for name, mask in masks.items():
        fits = tuple(mask.shape) == shapes[name]
        require(
            fits, f"the mask of {name} needs the shape {shapes[name]}, one value an example (got {tuple(mask.shape)})"
        )
        binary = mask.dtype == torch.bool or bool((mask == mask.bool()).all())
        require(binary, f"the mask of {name} must be True or False for each example")
