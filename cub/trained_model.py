"""A trained model of the birds, and its words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.checkpoints import load_config, load_model
from common.errors import InputError, require
from common.models import MultimodalVAE
from common.training import devices
from common.training.options import ModelConfig
from cub.captions import Vocabulary, read_vocabulary
from cub.data import Birds, load
from cub.features import about
from cub.model import AUTHORS_WORDS
from cub.options import WordOptions


class Source(Protocol):
    demo: bool
    data_dir: Path
    cache_dir: Path | None


@dataclass
class TrainedConfig(WordOptions, ModelConfig):
    """The options that sample.py, loglike.py and analyse.py share."""

    limit: int | None = None
    """use only the first N images of each split, with their captions"""


def vocabulary_of(model: Path, vocab: Path | None) -> Vocabulary:
    """The words of a trained model: its own, or of the authors' those of a file.

    Raises:
        InputError: the authors' without a file, ours with one; a file of another number of words.
    """
    own = load_config(model, "cub")["vocabulary"]
    require(own is None or vocab is None, f"{model} knows its own words: leave out --vocab")
    require(
        own is not None or vocab is not None, f"{model} does not hold its words: --vocab PATH (the authors' cub.vocab)"
    )
    if own is not None:
        return Vocabulary(own)
    found = read_vocabulary(vocab)
    n = len(found.words)
    require(n == AUTHORS_WORDS, f"{vocab} holds {n} words where the model has {AUTHORS_WORDS}: it is of another one")
    return found


def load_trained(config: TrainedConfig) -> tuple[MultimodalVAE, Vocabulary]:
    """The model that the options name, on its device, and its words."""
    model = load_model(config.model, "cub").to(devices.select(config.cuda))
    return model, vocabulary_of(config.model, config.vocab)


def load_birds(split: str, model: MultimodalVAE, vocabulary: Vocabulary, config: TrainedConfig) -> Birds:
    """A split of the birds as the model sees them (`cub.data.load`).

    Raises:
        InputError: as there; the features are of another network than those that the model learnt from.
    """
    if "feature" not in model.modalities:
        return load(split, config, "image", vocabulary)
    learnt, found = load_config(config.model, "cub").get("feature_network"), network_behind(config)
    if learnt is None:
        print(f"{config.model} does not say which features it learnt from; these are of {said(found)}")
    elif learnt != found:
        raise InputError(
            f"{config.model} learnt from features of {said(learnt)}, these are of {said(found)}: give the same"
        )
    return load(split, config, "feature", vocabulary)


def network_behind(config: Source) -> dict[str, Any]:
    """What the features of the birds are made by (`cub.features.about`)."""
    return {"weights": "correlograms of colours"} if config.demo else about(config.cache_dir or config.data_dir)


def said(network: dict[str, Any]) -> str:
    """What a network is, in words."""
    return ", ".join(f"{name} {value}" for name, value in network.items())
