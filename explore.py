"""Explore a model in the browser: give it modalities, move through its latent space, watch what it generates.

    python explore.py mnist/trained_models                 then open http://127.0.0.1:7860
    python explore.py cub/trained_models --port 8000

Every modality can be given or left out: draw a digit or upload a picture, choose a label, type a caption. z is the
mean of the posterior, or of the prior if nothing is given; "draw" replaces it by a sample, and each slider moves it
along one of the latents that change the pictures most. Every change decodes all modalities again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
import tyro
from PIL import ImageOps
from torch import Tensor
from torch.distributions import Distribution

from celeba.attributes import ATTRIBUTES
from common.checkpoints import experiment_of, load_model
from common.errors import InputError, require
from common.models import MultimodalVAE
from common.training import devices, run_from_command_line
from cub.trained_model import vocabulary_of
from exploration import pictures, server
from fashionmnist.data import CLASSES as GARMENTS
from mnist.data import CLASSES as DIGITS
from multimnist.data import names, parse
from polymnist.data import modalities
from polymnist.options import MAX_MODALITIES
from translation.data import CODES
from translation.data import names as names_of_numbers
from translation.data import parse as parse_number
from vision.model import CHANNELS

N_SLIDERS = 8
SHOWN = 224  # width and height of a picture on the page, pixels
NONE = "not given"


@dataclass
class Config:
    """The options of explore.py."""

    model: tyro.conf.Positional[Path]
    """a checkpoint, or a run's folder for its best model. The original authors' files work too"""
    port: int = 7860
    """port on this machine"""
    vocab: Path | None = None
    """for the authors' model of cub: their cub.vocab, since the model does not hold its words"""
    cuda: bool = False
    """use the GPU"""


@dataclass(frozen=True)
class Picture:
    """The view of an image modality: uploaded, or with one channel also drawn, and shown enlarged."""

    channels: int
    size: int

    def input(self, label: str) -> gr.components.Component:
        return pictures.canvas(label, drawn=self.channels == 1)

    def read(self, value: str) -> Tensor | None:
        """(1, C, H, W) in [0, 1], a drawing bright on black; None where nothing is drawn or uploaded."""
        image = pictures.read(value)
        if image is None:
            return None
        ink = image.getchannel("A")
        if not ink.getbbox():
            return None
        if ink.getextrema()[0] < 255:
            image = pictures.digit(ink) if self.size == 28 else ink
        image = ImageOps.fit(image.convert("RGB" if self.channels == 3 else "L"), (self.size, self.size))
        return torch.tensor(np.array(image)).view(1, self.size, self.size, -1).movedim(-1, 1).float() / 255

    def output(self, label: str) -> gr.components.Component:
        return pictures.output(label)

    def show(self, p: Distribution) -> str:
        x = (p.mean[0].clamp(0, 1) * 255).byte().expand(3, -1, -1).movedim(0, -1).cpu().numpy()  # (H, W, 3)
        times = -(-SHOWN // self.size)
        return pictures.shown(x.repeat(times, 0).repeat(times, 1), "decoded")


@dataclass(frozen=True)
class Choice:
    """The view of a class: chosen by name, and shown as the three most probable names."""

    names: Sequence[str]

    def input(self, label: str) -> gr.components.Component:
        return gr.Dropdown([NONE, *self.names], value=NONE, label=label)

    def read(self, value: str) -> Tensor | None:
        return None if value == NONE else torch.tensor([self.names.index(value)])

    def output(self, label: str) -> gr.components.Component:
        return gr.Label(label=label, num_top_classes=3)

    def show(self, p: Distribution) -> dict[str, float]:
        shares = p.probs[0].tolist() if len(self.names) > 2 else [1 - p.mean.item(), p.mean.item()]
        return dict(zip(self.names, shares, strict=True))


@dataclass(frozen=True)
class Attributes:
    """The view of many binary attributes in one modality."""

    names: Sequence[str]

    def input(self, label: str) -> gr.components.Component:
        return gr.CheckboxGroup([NONE, *self.names], value=[NONE], label=f"{label}: all others are no")

    def read(self, value: Sequence[str]) -> Tensor | None:
        return None if NONE in value else torch.tensor([[float(name in value) for name in self.names]])

    def output(self, label: str) -> gr.components.Component:
        return gr.Label(label=label, num_top_classes=len(self.names))

    def show(self, p: Distribution) -> dict[str, float]:
        return dict(zip(self.names, p.mean[0].tolist(), strict=True))


@dataclass(frozen=True)
class Words:
    """The view of a text, given the functions that encode and decode it."""

    encode: Callable[[str], Tensor]
    decode: Callable[[Tensor], Sequence[str]]

    def input(self, label: str) -> gr.components.Component:
        return gr.Textbox(label=label, placeholder=NONE)

    def read(self, value: str) -> Tensor | None:
        return self.encode(value) if value.strip() else None

    def output(self, label: str) -> gr.components.Component:
        return gr.Textbox(label=label, interactive=False)

    def show(self, p: Distribution) -> str:
        return self.decode(p.mode.cpu())[0]


# input, output: the components of the page, at the left and at the right; read: the modality's value (1, ...) of an
# input component, None if it is not given; show: the value of the output component for a decoded distribution
View = Picture | Choice | Attributes | Words
FACE = Picture(3, 64)
VIEWS: dict[str, dict[str, View]] = {
    "mnist": {"image": Picture(1, 28), "text": Choice(DIGITS)},
    "fashionmnist": {"image": Picture(1, 28), "text": Choice(GARMENTS)},
    "multimnist": {"image": Picture(1, 50), "text": Words(parse, names)},
    "celeba": {"image": FACE, "attrs": Attributes(ATTRIBUTES)},
    "celeba19": {"image": FACE, **dict.fromkeys(ATTRIBUTES, Choice(("no", "yes")))},
    "vision": {name: Picture(channels, 64) for name, channels in CHANNELS.items()},
    "translation": {x: Words(partial(parse_number, language=x), partial(names_of_numbers, language=x)) for x in CODES},
    "mnist_svhn": {"mnist": Picture(1, 28), "svhn": Picture(3, 32)},
    "polymnist": dict.fromkeys(modalities(MAX_MODALITIES), Picture(3, 28)),
}


class Explorer:
    """Decodes a model's modalities at a point of its latent space.

    Args:
        views: the views of the modalities that the page shows.

    Attributes:
        dimensions: the latents that change the decoded pictures most, (N_SLIDERS,).
    """

    def __init__(self, model: MultimodalVAE, views: dict[str, View]) -> None:
        self.model, self.views = model, {name: view for name, view in views.items() if name in model.modalities}
        self.device = next(model.parameters()).device
        z = self.at({})  # (1, D)
        steps = torch.eye(z.shape[1], device=self.device)
        shown = [name for name, view in self.views.items() if isinstance(view, Picture)] or list(self.views)
        project = self.model.variational_posterior.project
        above, below = (self.model.decode(project(z + sign * steps), shown) for sign in (2, -2))
        has_pictures = isinstance(self.views[shown[0]], Picture)
        pairs = [[p[x].mean if has_pictures else p[x].logits.softmax(dim=-1) for p in (above, below)] for x in shown]
        effect = sum((a - b).square().flatten(1).sum(dim=1) for a, b in pairs)  # (D,)
        self.dimensions = effect.argsort(descending=True)[:N_SLIDERS].tolist()

    @torch.no_grad()
    def at(self, inputs: dict[str, Tensor], draw: int = 0) -> Tensor:
        """The mean of q(z|inputs), or of the prior without inputs, (1, D).

        Args:
            draw: if not 0, seed of a sample to return instead of the mean.
        """
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        q = self.model.posterior(inputs) if inputs else self.model.prior().expand((1,))
        point = self.model.variational_posterior.point(q)
        if not draw and point.isfinite().all():  # the uniform prior on a sphere has no mean direction
            return point
        with torch.random.fork_rng():
            torch.manual_seed(draw)
            return q.sample()

    @torch.no_grad()
    def frame(self, given: Sequence[Any], draw: int, moves: Sequence[float]) -> list[Any]:
        """The values of the output components, and a text of the time that they took.

        Args:
            given: the values of the input components.
            draw: see `at`.
            moves: the positions of the sliders, (N_SLIDERS,).
        """
        start = time.perf_counter()
        read = {name: view.read(value) for (name, view), value in zip(self.views.items(), given, strict=True)}
        z = self.at({name: x for name, x in read.items() if x is not None}, draw)
        z = z.index_add(1, torch.tensor(self.dimensions, device=self.device), torch.tensor([moves]).to(z))
        p = self.model.decode(self.model.variational_posterior.project(z), list(self.views))
        shown = [view.show(p[name]) for name, view in self.views.items()]
        return [*shown, f"{1000 * (time.perf_counter() - start):.0f} ms"]


def page(explorer: Explorer, title: str) -> gr.Blocks:
    """The page: inputs at the left, sliders of the latents below them, all modalities at the right."""
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {title}")
        with gr.Row():
            with gr.Column():
                given = [view.input(f"given {name}") for name, view in explorer.views.items()]
                draw = gr.Slider(0, 100, step=1, label="draw of z (0: the mean)")
                sliders = [gr.Slider(-4, 4, 0, step=0.1, label=f"latent {d}") for d in explorer.dimensions]
                reset = gr.Button("reset all latents")
            with gr.Column():
                shown = [view.output(name) for name, view in explorer.views.items()]
                took = gr.Markdown()
        inputs, outputs = [*given, draw, *sliders], [*shown, took]
        n = len(given)
        latest = {"show_progress": "hidden", "trigger_mode": "always_last", "queue": False, "api_visibility": "private"}

        def update(*values: object) -> list[Any]:
            try:
                return explorer.frame(values[:n], int(values[n]), values[n + 1 :])
            except InputError as error:
                raise gr.Error(str(error), print_exception=False) from error

        for component in inputs:
            component.change(update, inputs, outputs, **latest)
        reset.click(lambda: [0] * len(sliders), None, sliders, queue=False, api_visibility="private")
        blocks.load(update, inputs, outputs, **latest)
    return blocks


def views_of(config: Config) -> dict[str, View]:
    """The views of the modalities of a checkpoint's model.

    Raises:
        InputError: VIEWS lacks the experiment.
    """
    experiment = experiment_of(config.model)
    if experiment == "cub":
        words = vocabulary_of(config.model, config.vocab)
        return {"image": FACE, "caption": Words(lambda text: words.encode([text]), words.sentences)}
    require(experiment in VIEWS, f"explore.py cannot show models of {experiment} ({config.model}): use its sample.py")
    return VIEWS[experiment]


def main(config: Config) -> None:
    """Serve the page until Ctrl-C."""
    with server.listen(config.port) as listening:
        views = views_of(config)
        model = load_model(config.model).to(devices.select(config.cuda))
        require(
            not any(modality.given for modality in model.modality.values()),
            f"{config.model} is a CVAE, which models only p(image|text): use its sample.py",
        )
        explorer = Explorer(model, views)
        title = f"{experiment_of(config.model)}: {config.model}"
        server.serve(server.application(partial(page, explorer, title)), listening)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
