"""Explore models in the browser: give them modalities, move through their latent space, watch what they generate.

    python explore.py mnist/trained_models                 then open http://127.0.0.1:7860
    python explore.py cub/trained_models --port 8000
    python explore.py mnist/trained_models --latent-prior maf     random draws from a flow fitted to its latents
    python explore.py mnist/poe mnist/moe                  two models of one experiment, side by side

Every modality can be given or left out: draw a digit or upload a picture, click an example, choose a label, type a
caption. z is the mean of the posterior, or of the prior if nothing is given; a random draw replaces it by a sample, and
each slider moves it along one of the latents that change the pictures most. Every change decodes all modalities again.
"""

import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from common.errors import install, require

if find_spec("gradio") is None and __name__ == "__main__":
    print(f"error: explore.py needs gradio: {install('gradio')}", file=sys.stderr)
    sys.exit(2)

from common import fitted_priors
from common.checkpoints import experiment_of, load_model
from common.execution import devices
from common.latent_priors import Kind
from cub.trained_model import vocabulary_of
from polymnist.data import SIZE
from tools.exploration import examples, server
from tools.exploration.explorer import Explorer
from tools.exploration.page import call_type, page
from tools.exploration.views import FACE, VIEWS, View, Words
from training import run_from_command_line

import tyro
from torch import Tensor


@dataclass
class Config:
    """The options of explore.py."""

    models: tyro.conf.Positional[tuple[Path, ...]]
    """checkpoints of one experiment, or runs' folders for their best models. The original authors' files work too"""
    port: int = 7860
    """port on this machine"""
    latent_prior: Kind | None = None
    """draw from the density that `python -m tools.latent_prior` fitted to each model, where nothing is given"""
    vocab: Path | None = None
    """for the authors' model of cub: their cub.vocab, since the model does not hold its words"""
    cuda: bool = False
    """use the GPU"""


def load(path: Path, config: Config) -> tuple[Explorer, dict[str, Tensor]]:
    """Return the explorer of a model, and the examples of its experiment.

    Raises:
        InputError: a file is unusable, VIEWS lacks the experiment, or the model is a CVAE.
    """
    experiment = experiment_of(path)
    require(experiment == "cub" or not config.vocab, f"--vocab is for models of cub, {path} is one of {experiment}")
    views: dict[str, View]
    if experiment == "cub":
        words = vocabulary_of(path, config.vocab)
        views = {"image": FACE, "caption": Words(lambda text: words.encode([text]), words.sentences)}
        values = examples.load_birds(words)
    else:
        shown = f"explore.py shows models of {', '.join(VIEWS)} and cub, not of {experiment} ({path})"
        require(
            experiment in VIEWS,
            f"{shown}: use its sample.py, or add your folder to VIEWS in tools/exploration/views.py",
        )
        views, values = VIEWS[experiment], examples.load(experiment)
    model = load_model(path).to(devices.select(config.cuda))
    require(
        not any(modality.given for modality in model.modality.values()),
        f"{path} is a CVAE, which models an image only given its label: use its sample.py",
    )
    require(
        not views.keys().isdisjoint(model.modalities),
        f"{path} models {', '.join(model.modalities)}, and the page shows {', '.join(views)}: use its sample.py",
    )
    larger = experiment == "polymnist" and model.decoded_once("m0").event_shape[-1] > SIZE
    remedy = f"and the page shows {SIZE} x {SIZE} pixels: use its sample.py"
    require(not larger, f"{path} was trained with --quadrant, {remedy}")
    latents = config.latent_prior and fitted_priors.load(path, config.latent_prior, model)
    return Explorer(model, views, latents), values


def say(what: str) -> None:
    """Say on a terminal what takes seconds."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def main(config: Config) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: a model cannot be shown, the models differ in experiment or modalities, or the port is in use.
    """
    require(bool(config.models), "no model is given: name at least one checkpoint or run's folder")
    with server.listen(config.port) as listening:
        experiments = {path: experiment_of(path) for path in config.models}
        (first, experiment), *others = experiments.items()
        for path, other in others:
            require(
                other == experiment,
                f"{path} is a model of {other}, {first} of {experiment}: give models of one experiment",
            )
        explorers = {}
        for path in config.models:
            say(f"loading {path} and examples of {experiment}")
            explorers[str(path)], values = load(path, config)
        shown = {name: tuple(explorer.views) for name, explorer in explorers.items()}
        for name, modalities in shown.items():
            require(
                modalities == shown[str(first)],
                f"{name} has the modalities {', '.join(modalities)}, {first} {', '.join(shown[str(first)])}: "
                "give models of the same modalities",
            )
        say("making the page")
        make_page = partial(page, explorers, f"Explore {experiment}", values)
        server.serve(server.application(make_page, call_type(explorers)), listening)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
