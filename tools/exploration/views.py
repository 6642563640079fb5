"""How the explorer takes and shows each modality: pictures, classes, attributes and texts."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from celeba.attributes import ATTRIBUTES
from fashionmnist.data import CLASSES as GARMENTS
from mnist.data import CLASSES as DIGITS
from multimnist import data as multimnist
from polymnist.data import modalities
from polymnist.options import MAX_MODALITIES
from tools.exploration import pictures, strokes
from translation.data import CODES
from translation.data import names as names_of_numbers
from translation.data import parse as parse_number
from vision.model import CHANNELS

import gradio as gr
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.distributions import Distribution

SHOWN = 224  # width and height of a decoded picture at least, pixels
NONE = "not given"
NO_ATTRIBUTE = "none of these"
N_CLASSES = 3  # the most probable ones are shown


@dataclass(frozen=True)
class Picture:
    """The view of an image modality: uploaded, or with one channel also drawn, and shown enlarged.

    value: the type of what its component holds, as JSON; in all views.
    drawing: reads the ink of a drawing, such as `strokes.digit`; None leaves it as it was drawn.
    brush: width of the brush, pixels of the modality.
    """

    value: ClassVar = str | None
    channels: int
    size: int
    drawing: Callable[[Image.Image], np.ndarray] | None = None
    brush: float = 2

    def input(self, label: str, examples: Tensor) -> gr.components.Component:
        """The component that takes it, with examples (N, C, H, W) in [0, 1] to click; blank ones are left out."""
        tags = [pictures.tag(rgb(x), f"example {i}") for i, x in enumerate(examples, 1) if x.any()]
        return pictures.canvas(label, tags, pictures.SIDE * self.brush / self.size if self.channels == 1 else None)

    def read(self, value: str) -> Tensor | None:
        """(1, C, H, W) in [0, 1], a drawing bright on black; None where nothing is drawn or uploaded."""
        image = pictures.read(value)
        if image is None:
            return None
        ink = image.getchannel("A")
        if not ink.getbbox():
            return None
        if ink.getextrema()[0] < 255:
            image = Image.fromarray(self.drawing(ink)) if self.drawing else ink
        image = ImageOps.fit(image.convert("RGB" if self.channels == 3 else "L"), (self.size, self.size))
        return torch.tensor(np.array(image)).view(1, self.size, self.size, -1).movedim(-1, 1).float() / 255

    def show(self, p: Distribution) -> str:
        pixels = rgb(p.mean[0])
        times = -(-SHOWN // self.size)
        return pictures.tag(pixels.repeat(times, 0).repeat(times, 1), "decoded")


@dataclass(frozen=True)
class Choice:
    """The view of a class: chosen by name, and shown as the most probable names; for two classes, only the second."""

    names: Sequence[str]

    @property
    def value(self) -> Any:  # noqa: ANN401 (a type)
        return Literal[(NONE, *self.names)]

    def input(self, label: str, _: Tensor) -> gr.components.Component:
        return gr.Radio([NONE, *self.names], value=NONE, label=label)

    def read(self, value: str) -> Tensor | None:
        return None if value == NONE else torch.tensor([self.names.index(value)])

    def show(self, p: Distribution) -> str:
        if len(self.names) == 2:
            return shares({self.names[1]: p.mean.item()})
        top = p.probs[0].topk(N_CLASSES)
        return shares({self.names[i]: x for x, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)})


@dataclass(frozen=True)
class Attributes:
    """The view of many binary attributes in one modality; all or none of them are given."""

    names: Sequence[str]

    @property
    def value(self) -> Any:  # noqa: ANN401 (a type)
        return list[Literal[(NO_ATTRIBUTE, *self.names)]]

    def input(self, label: str, _: Tensor) -> gr.components.Component:
        return gr.CheckboxGroup([NO_ATTRIBUTE, *self.names], label=f"{label} (those that you do not tick are no)")

    def read(self, value: Sequence[str]) -> Tensor | None:
        return torch.tensor([[float(name in value) for name in self.names]]) if value else None

    def show(self, p: Distribution) -> str:
        return shares(dict(zip(self.names, p.mean[0].tolist(), strict=True)))


@dataclass(frozen=True)
class Words:
    """The view of a text, given the functions that encode and decode it."""

    value: ClassVar = str | None
    encode: Callable[[str], Tensor]
    decode: Callable[[Tensor], Sequence[str]]

    def input(self, label: str, examples: Tensor) -> gr.components.Component:
        """The component that takes it, with examples (N, ...) int64 to choose."""
        texts = dict.fromkeys(text for text in self.decode(examples) if text)
        return gr.Dropdown(
            ["", *texts], value="", allow_custom_value=True, label=f"{label}: type, or choose an example"
        )

    def read(self, value: str | None) -> Tensor | None:
        return self.encode(value) if value and value.strip() else None

    def show(self, p: Distribution) -> str:
        return f"<p>{html.escape(self.decode(p.mode.cpu())[0]) or '(empty)'}</p>"


def rgb(image: Tensor) -> np.ndarray:
    """An image (1 or 3, H, W), clipped to [0, 1], as (H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).byte().expand(3, -1, -1).movedim(0, -1).cpu().numpy()


def shares(probabilities: dict[str, float]) -> str:
    """Names with their probabilities as bars, in HTML."""
    rows = [
        f'<li style="--share: {100 * x:.0f}%">{html.escape(name)} <b>{100 * x:.0f} %</b></li>'
        for name, x in probabilities.items()
    ]
    return f"<ul>{''.join(rows)}</ul>"


# input: the component of the page that takes a modality; read: the modality's value (1, ...) from what it holds, None
# if it is not given; show: a decoded distribution as HTML
View = Picture | Choice | Attributes | Words
FACE = Picture(3, 64)
DIGIT = Picture(1, strokes.DIGIT, strokes.digit, strokes.THICKNESS)
STRINGS = Picture(
    1,
    multimnist.SIZE,
    partial(strokes.in_place, size=multimnist.SIZE, shrink=multimnist.SHRINK),
    strokes.THICKNESS / multimnist.SHRINK,
)
VIEWS: dict[str, dict[str, View]] = {
    "mnist": {"image": DIGIT, "text": Choice(DIGITS)},
    "fashionmnist": {"image": Picture(1, 28), "text": Choice(GARMENTS)},
    "multimnist": {"image": STRINGS, "text": Words(multimnist.parse, multimnist.names)},
    "celeba": {"image": FACE, "attrs": Attributes(ATTRIBUTES)},
    "celeba19": {"image": FACE, **dict.fromkeys(ATTRIBUTES, Choice(("no", "yes")))},
    "vision": {name: Picture(channels, 64) for name, channels in CHANNELS.items()},
    "translation": {x: Words(partial(parse_number, language=x), partial(names_of_numbers, language=x)) for x in CODES},
    "mnist_svhn": {"mnist": DIGIT, "svhn": Picture(3, 32)},
    "polymnist": dict.fromkeys(modalities(MAX_MODALITIES), Picture(3, 28)),
}
