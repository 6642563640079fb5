"""Sample from a model of CUB: from the prior, or given an image or a caption.

    python sample.py trained_models --data-dir data                          birds and captions from the prior
    python sample.py trained_models --mixture 10 --data-dir data             from ten Gaussians fitted to latents
    python sample.py trained_models --cluster 3                              from a cluster of CMVAE's prior
    python sample.py trained_models --condition-on-image FILE                captions of a photograph
    python sample.py trained_models --condition-on-text "a small bird"       images for a caption
    python sample.py trained_models --given image --data-dir data            test birds, and birds decoded from their
                                                                             images (or features, or captions)

Writes prior.png, mixture_10.png, cluster_3.png, given_text_a_small_bird.png, given_image_FILE.png or from_image.png
(or feature, caption), named by what was asked: images with captions below them; and a .txt of the same name with one
caption per line. For a model of features, each generated feature is shown as the training image with the nearest
feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from common.data.image_caches import decode
from common.errors import require
from common.models import MultimodalVAE
from cub import demo as drawn
from cub import feature_files
from cub.captions import LENGTH, SPECIAL, UNKNOWN, Vocabulary, words
from cub.data import CAPTIONS, IMAGES, Birds
from cub.trained_model import TrainedConfig, load_birds, load_trained
from reports import plots, sampling, tables
from reports.options import ClusterSamplesConfig
from reports.sampling import Given
from training import run_from_command_line

import torch
from torch import Tensor
from torch.distributions import Distribution

COLUMNS = 6


@dataclass
class Config(TrainedConfig, ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_image", "condition_on_text", "given")
    SCORED: ClassVar = ("given",)

    n_samples: int = 2 * COLUMNS
    """birds to generate, or test birds to show"""
    condition_on_image: Path | None = None
    """path of an image; can be combined with a caption"""
    condition_on_text: str | None = None
    """a caption; can be combined with an image"""
    given: Literal["image", "feature", "caption"] | None = None
    """generate from this modality of test birds"""


def main(config: Config) -> None:
    """Save the samples that the options ask for, and print the names of the files."""
    config.check()
    conditional = config.condition_on_image is not None or config.condition_on_text is not None
    require(
        not (config.given and conditional),
        "--given takes test birds: leave out --condition-on-image and --condition-on-text",
    )
    model, vocabulary = load_trained(config)
    is_modality = config.given is None or config.given in model.modalities
    require(is_modality, f"this model has no {config.given}: use --given {model.modalities[0]}")
    condition = given(config, model, vocabulary) if conditional else None
    needed = config.mixture or "feature" in model.modalities
    training = load_birds("train", model, vocabulary, config) if needed else None
    view = View(model, vocabulary, training)
    torch.manual_seed(config.seed)
    path, n, latents = config.path(), config.n_samples, config.latents(model, lambda: training.examples)
    if config.given:
        birds = load_birds("test", model, vocabulary, config)[:n]
        written = view.decoded(birds, config.given, config.path_given((config.given,)), latents)
    elif condition:
        written = view.samples(config.path(condition.names), n, condition)
    else:
        written = view.samples(path, n, latents=latents)
    print(*written, sep="\n")


def given(config: Config, model: MultimodalVAE, vocabulary: Vocabulary) -> Given:
    """What --condition-on-text and --condition-on-image give; the image beside is NaN if none is given.

    Raises:
        InputError: the image is unreadable, no word of the caption is known, or the model lacks a modality.
    """
    inputs, names, image = {}, {}, torch.full((1, 3, 64, 64), torch.nan)
    if config.condition_on_text is not None:
        require("caption" in model.modalities, "this model has no captions: leave out --condition-on-text")
        names["text"] = config.condition_on_text
        inputs["caption"] = _encoded(names["text"], vocabulary)
    if config.condition_on_image is not None:
        require(model.modalities != ("caption",), "this model has no images: leave out --condition-on-image")
        names["image"] = config.condition_on_image.name
        image = torch.tensor(decode(config.condition_on_image, IMAGES, "give another")).float()[None] / 255
        if "image" in model.modalities:
            inputs["image"] = image
        elif config.demo:
            inputs["feature"] = drawn.features(image)
        else:
            network = feature_files.network_of(config.cache_dir or config.data_dir)
            inputs["feature"] = feature_files.features_of_file(network, config.condition_on_image)[None]
    inputs = {name: x.to(model.device) for name, x in inputs.items()}
    return Given(inputs, names, f"{' and '.join(inputs)}, at the left", image)


def _encoded(typed: str, vocabulary: Vocabulary) -> Tensor:
    """Tokens (1, 32) of a typed caption; prints which words are unknown or left out."""
    unknown, typed_words = vocabulary.unknown(typed), words(typed)
    if unknown:
        print(f"unknown words, all read as {SPECIAL[UNKNOWN]}: {', '.join(dict.fromkeys(unknown))}")
    require(
        len(unknown) < len(typed_words), f"--condition-on-text {typed!r} has no word that the model knows: use others"
    )
    surplus = typed_words[LENGTH - 1 :]
    if surplus:
        print(f"too long by {tables.count(len(surplus), 'word')}, left out: {' '.join(surplus)}")
    return vocabulary.encode([typed])


class View(NamedTuple):
    """Saves what a model generates as images with captions below, and the captions as lines of text.

    training: training birds with features, for a model of features: each feature is shown as the image of the nearest
        training feature.
    """

    model: MultimodalVAE
    vocabulary: Vocabulary
    training: Birds | None = None

    def images(self, values: Mapping[str, Tensor]) -> Tensor:
        """Images (N, 3, 64, 64) in [0, 1] that show a batch {modality: (N, ...)}; NaN if it has captions alone."""
        if "image" in values:
            return values["image"].cpu()
        if "feature" in values:
            training = self.training.examples.modalities
            i = feature_files.nearest(values["feature"], training["feature"].to(values["feature"].device))
            return training["image"][i.cpu()].float() / 255
        return torch.full((len(values["caption"]), 3, 64, 64), torch.nan)

    def sentences(self, values: Mapping[str, Tensor]) -> list[str]:
        """N captions of a batch {modality: (N, ...)}, empty if it has none."""
        if "caption" in values:
            return self.vocabulary.sentences(values["caption"].cpu())
        return [""] * len(next(iter(values.values())))

    @torch.no_grad()
    def samples(
        self, path: Path, n: int, condition: Given | None = None, latents: Distribution | None = None
    ) -> list[Path]:
        """Save n samples from the prior, or from the posterior given a condition; returns the files.

        Args:
            latents: what to draw z from in place of the prior.
        """
        model = self.model
        z = model.posterior(condition.inputs).sample((n,)).squeeze(1) if condition else model.draw_latents(n, latents)
        values = model.likelihood.point(model.decode(z))
        images, sentences, title = self.images(values), self.sentences(values), sampling.title_of(latents)
        if condition:
            title = f"samples given {condition.title}"
            images = torch.cat([condition.beside, images])
            sentences = [condition.names.get("text") or "(given)", *sentences]
        return self._save(path, {"": (images, sentences)}, title, values)

    @torch.no_grad()
    def decoded(self, birds: Birds, source: str, path: Path, latents: Distribution | None = None) -> list[Path]:
        """Save birds, and below each the decoding of one draw of `latents_given`; returns the files."""
        first = torch.arange(0, len(birds.captions), CAPTIONS)  # one caption per image
        batch = birds.examples.only(self.model.modalities)[first].modalities
        z = sampling.latents_given(self.model, {source: batch[source].to(self.model.device)}, (source,), latents)
        values = self.model.likelihood.point(self.model.decode(z))
        photographs = birds.examples.modalities["image"].float() / 255
        rows = {
            f"{source}\ngiven": (photographs, [birds.captions[i] for i in first]),
            "decoded": (self.images(values), self.sentences(values)),
        }
        return self._save(path, rows, f"decoded from a sample of q(z|{source})", values)

    def _save(
        self, path: Path, rows: Mapping[str, tuple[Tensor, Sequence[str]]], title: str, values: Mapping[str, Tensor]
    ) -> list[Path]:
        """Save rows of images with captions, and the captions among the generated values; returns the files."""
        images, labels, captions = plots.alternating(rows, COLUMNS)
        if self.training and "feature" in self.model.modalities:
            title += "; each feature is shown as the nearest training image"
        plots.captioned(path, images, labels if len(rows) > 1 else None, captions, title)
        if "caption" not in values:
            return [path]
        return [path, sampling.write_lines(path.with_suffix(".txt"), self.sentences(values))]


def draw(model: MultimodalVAE, folder: Path, train: Birds, valid: Birds | None) -> None:
    """Save pictures during training: samples from the prior, and decodings given each modality."""
    birds = valid or train
    view = View(model, birds.vocabulary, train)
    view.samples(folder / "prior.png", 2 * COLUMNS)
    for source in model.modalities:
        view.decoded(birds[: 2 * COLUMNS], source, folder / f"from_{source}.png")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
