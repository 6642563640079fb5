"""Load a trained CUB model, its vocabulary, and the birds as it sees them or learns from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoints import load_config
from common.errors import InputError, require
from common.models import MultimodalVAE
from cub import data
from cub.captions import Vocabulary, read_vocabulary
from cub.data import Birds, load
from cub.feature_files import about
from cub.model import AUTHORS_WORDS
from cub.options import MODELS, BirdOptions, WordOptions
from reports.options import ModelConfig


@dataclass
class TrainedConfig(WordOptions, ModelConfig):
    """The options that sample.py, loglike.py and analyse.py share."""


def vocabulary_of(model: Path, vocab: Path | None) -> Vocabulary:
    """Vocabulary of a trained model: from its config, or from the authors' file for a model that they trained.

    Raises:
        InputError: an authors' model without --vocab, one of ours with it, or a vocabulary of another size.
    """
    saved = load_config(model, "cub").get("vocabulary")
    require(saved is None or vocab is None, f"{model} holds its own vocabulary: leave out --vocab")
    require(
        saved is not None or vocab is not None,
        f"{model} does not hold its vocabulary: add --vocab PATH (the authors' cub.vocab)",
    )
    if saved is not None:
        return Vocabulary(saved)
    vocabulary = read_vocabulary(vocab)
    n = len(vocabulary.words)
    require(n == AUTHORS_WORDS, f"{vocab} has {n} words, the model {AUTHORS_WORDS}: give the vocabulary of this model")
    return vocabulary


def load_trained(config: TrainedConfig) -> tuple[MultimodalVAE, Vocabulary]:
    """The model that the options name, on the device that they choose, and its vocabulary."""
    return config.trained_model("cub"), vocabulary_of(config.model, config.vocab)


def load_train(config: Any) -> tuple[Birds, Birds | None]:  # noqa: ANN401 (the Config of train.py)
    """Load birds to train on and to validate on; completes the config with their vocabulary and network of features."""
    source = "feature" if "feature" in MODELS[config.model].modalities else "image"
    words = None
    if config.pre_trained:  # a resumed run has the words itself: the other run may be gone
        resumed = config.resume and config.vocabulary
        words = Vocabulary(config.vocabulary) if resumed else vocabulary_of(config.pre_trained, config.vocab)
    train, valid = data.load_train(config, source, words)
    config.vocabulary = train.vocabulary.words
    config.feature_network = network_behind(config) if source == "feature" else None
    return train, valid


def load_birds(split: str, model: MultimodalVAE, vocabulary: Vocabulary, config: TrainedConfig) -> Birds:
    """Load a split of the birds as the model sees them, with images or features; see `cub.data.load`.

    Raises:
        InputError: see `cub.data.load`; or the features come from another network than those in training.
    """
    if "feature" not in model.modalities:
        return load(split, config, "image", vocabulary)
    trained_on, given = load_config(config.model, "cub").get("feature_network"), network_behind(config)
    if trained_on is None:
        print(f"{config.model} does not say which features it was trained on; these are from {network_in_words(given)}")
    elif trained_on != given:
        raise InputError(
            f"{config.model} was trained on features from {network_in_words(trained_on)}, these are from "
            f"{network_in_words(given)}: give the same (--cache-dir, --demo)"
        )
    return load(split, config, "feature", vocabulary)


def network_behind(config: BirdOptions) -> dict[str, Any]:
    """Description of the network that makes the features of the birds (`cub.feature_files.about`)."""
    return {"weights": "correlograms of colours"} if config.demo else about(config.cache_dir or config.data_dir)


def network_in_words(network: dict[str, Any]) -> str:
    """The description of a network as text: "name value, name value"."""
    return ", ".join(f"{name} {value}" for name, value in network.items())
