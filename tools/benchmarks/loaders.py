"""Data loading as in the originals: example by example, each image opened, resized and converted to a tensor."""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import NamedTuple

from common.data import Batch, Examples
from common.data.torchvision_import import transforms
from vision.transforms import picture

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SIDE = 64  # height and width of a photograph in a batch, pixels
CUT = [transforms.Resize(SIDE), transforms.CenterCrop(SIDE)]


def obscured(image: Image.Image) -> Image.Image:
    """The image with its right half black."""
    pixels = np.array(image)
    pixels[:, pixels.shape[1] // 2 :] = 0
    return Image.fromarray(pixels)


def watermarked(image: Image.Image) -> Image.Image:
    """The image with the watermark in its middle."""
    image, mark = image.copy(), picture(min(image.size))
    image.paste(mark, tuple((side - mark.width) // 2 for side in image.size), mask=mark)
    return image


class Files(NamedTuple):
    """How the originals store and load examples.

    size: width and height of the compressed images, pixels; None if the images lie in memory.
    transform: applied to each image.
    made: further views, by name, with the function that makes each from the opened image.
    """

    size: tuple[int, int] | None = None
    transform: Callable[[Image.Image], Tensor] = transforms.ToTensor()
    made: tuple[tuple[str, Callable[[Image.Image], Image.Image]], ...] = ()

    def loader(self, examples: Examples) -> Callable[[int], Iterator[Batch]]:
        """A function from a batch size to the batches of an epoch."""
        pictures = Pictures(examples, self)

        def batches(batch_size: int) -> Iterator[Batch]:
            for values in DataLoader(pictures, batch_size, shuffle=True):
                yield Batch(values)

        return batches


class Pictures(Dataset):
    """Examples one by one; if the files have a size, their images are resized and compressed at the start."""

    def __init__(self, examples: Examples, files: Files) -> None:
        self.examples, self.files = examples, files
        images = {name: x for name, x in examples.modalities.items() if files.size and x.dtype == torch.uint8}
        self.contents = {name: [_compressed(pixels, files.size) for pixels in x] for name, x in images.items()}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {key: value for name in self.examples.modalities for key, value in self._of(name, i)}

    def _of(self, name: str, i: int) -> Iterator[tuple[str, Tensor]]:
        x = self.examples.modalities[name][i]
        if x.dtype != torch.uint8:
            yield name, x
            return
        image = Image.open(BytesIO(self.contents[name][i])) if self.files.size else Image.fromarray(_pixels(x))
        image = image.convert("L" if len(x) == 1 else "RGB")
        yield name, self.files.transform(image)
        if name == "image":
            yield from ((key, self.files.transform(make(image))) for key, make in self.files.made)


def _compressed(x: Tensor, size: tuple[int, int]) -> bytes:
    content = BytesIO()
    Image.fromarray(_pixels(x)).resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def _pixels(x: Tensor) -> np.ndarray:
    """(C, H, W) -> (H, W) or (H, W, 3)."""
    return x.permute(1, 2, 0).squeeze(2).numpy()


DIGITS = VECTORS = Files()
FACES = Files((178, 218), transforms.Compose([*CUT, transforms.ToTensor()]))
VIEWS = FACES._replace(made=(("obscured", obscured), ("watermark", watermarked)))
PHOTOGRAPHS = Files((500, 375), transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor()]))
