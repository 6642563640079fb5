"""The explorer's page: what is given beside what the models decode, which stays in view."""

import html
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from common.errors import InputError
from tools.exploration.explorer import Explorer

import gradio as gr
from msgspec import Meta, defstruct
from torch import Tensor

STYLE = Path(__file__).with_name("page.css").read_text()
N_IN_VIEW = 4  # sliders that are not folded away
REACH, DRAWS = 4, 100  # of the sliders: of a latent to either side, and of the random draw
MOVE, DRAW = Annotated[float, Meta(ge=-REACH, le=REACH)], Annotated[int, Meta(ge=0, le=DRAWS)]
HELP = (
    "Give what you like, or click an example: every modality is decoded from what you give, or from the prior if you "
    "give nothing. The sliders move the latent code from there."
)
LATEST = {"show_progress": "hidden", "trigger_mode": "always_last", "queue": False, "api_visibility": "private"}


def page(explorers: dict[str, Explorer], title: str, examples: dict[str, Tensor]) -> gr.Blocks:
    """Return the page: inputs and sliders, and at their right (above them on a phone) what each model decodes.

    Args:
        explorers: the models by the names that the page shows; all have the same modalities.
        examples: values of the modalities to click, {modality: (N, ...)}.
    """
    first, *_ = explorers.values()
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {html.escape(title)}\n{HELP}")
        with gr.Row():
            with gr.Column():
                given = [view.input(f"given {name}", examples.get(name, ())) for name, view in first.views.items()]
                sliders, draw = _sliders(list(explorers.values()))
            with gr.Column(elem_id="decoded"):
                decoded = gr.HTML()
        inputs = [*given, draw, *sliders]
        update = partial(frames, explorers, len(given))
        for component in inputs:
            component.change(update, inputs, decoded, **LATEST)
        blocks.load(update, inputs, decoded, **LATEST)
    return blocks


def call_type(explorers: dict[str, Explorer]) -> type:
    """Return the type of what the page sends: the modalities' values, the draw and the sliders, in this order.

    Its events have numbers: that of reset's click is 0, those of the inputs' changes and of loading follow.
    """
    first, *_ = explorers.values()
    n_sliders = min(len(explorer.dimensions) for explorer in explorers.values())
    data = (*(view.value for view in first.views.values()), DRAW, *n_sliders * [MOVE])
    return defstruct("Call", [("data", tuple[data]), ("fn_index", Annotated[int, Meta(ge=1, le=len(data) + 1)])])


def frames(explorers: dict[str, Explorer], n_given: int, *values: Any) -> str:  # noqa: ANN401 (gradio's values)
    """Return what the models decode, as HTML.

    Args:
        n_given: how many of the values are the modalities'; the draw and the sliders follow.

    Raises:
        gr.Error: a value cannot be read.
    """
    given, draw, moves = values[:n_given], int(values[n_given]), values[n_given + 1 :]
    try:
        shown = {name: explorer.frame(given, draw, moves) for name, explorer in explorers.items()}
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error
    models = [f"<section><h2>{html.escape(name)}</h2>{content}</section>" for name, content in shown.items()]
    return f'<div class="models">{"".join(models)}</div>'


def _sliders(explorers: Sequence[Explorer]) -> tuple[list[gr.Slider], gr.Slider]:
    """Return the sliders of the latents, which move the same rank in every model, and the one of the draw."""
    ranked = list(zip(*(explorer.dimensions for explorer in explorers), strict=False))  # those that all models have
    labels = [f"effect {i}: latent {', '.join(map(str, numbers))}" for i, numbers in enumerate(ranked, 1)]
    sliders = [gr.Slider(-REACH, REACH, 0, step=0.1, label=label) for label in labels[:N_IN_VIEW]]
    reset = gr.Button("reset all sliders")
    with gr.Accordion("More latents, and random draws", open=False):
        sliders += [gr.Slider(-REACH, REACH, 0, step=0.1, label=label) for label in labels[N_IN_VIEW:]]
        draw = gr.Slider(0, DRAWS, step=1, label="random draw of z (0: no draw, but the mean)")
    moved = [*sliders, draw]
    reset.click(None, None, moved, js=f"() => {[0] * len(moved)}", api_visibility="private")
    return sliders, draw
