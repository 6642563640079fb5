"""Sample a model of CUB's birds: from the prior, a caption of an image, an image of a caption.

    python sample.py trained_models --data-dir data                          birds and captions from the prior
    python sample.py trained_models --condition-on-image FILE                captions of a photograph
    python sample.py trained_models --condition-on-text "a small bird"       images of a caption
    python sample.py trained_models --given image --data-dir data            test birds, and what is decoded of their
                                                                             images (or of their features, captions)

Writes sample_prior.png, sample_given.png or sample_from_image.png (or feature, caption), pictures with captions
beneath, and these captions, a line each, as a .txt beside. A model of features is shown by the training images whose
features are nearest to those it generates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from common.data.image_caches import decode
from common.errors import require
from common.io import write_atomically
from common.models import MultimodalVAE
from common.reporting import plots
from common.training import run_from_command_line, runs
from cub import demo as drawn
from cub import features
from cub.captions import LENGTH, Vocabulary, words
from cub.data import CAPTIONS, IMAGES, Birds
from cub.trained_model import TrainedConfig, load_birds, load_trained

COLUMNS = 6


@dataclass
class Config(TrainedConfig):
    n_samples: int = 24
    """birds to generate, or test birds to show"""
    condition_on_image: Path | None = None
    """path of an image; can be combined with a caption"""
    condition_on_text: str | None = None
    """a caption; can be combined with an image"""
    given: Literal["image", "feature", "caption"] | None = None
    """generate from this modality of test birds"""
    out_dir: Path | None = None
    """folder to write to. Default: samples/ beside the model"""


def main(config: Config) -> None:
    config.check()
    some = config.condition_on_image is not None or config.condition_on_text is not None
    require(not (config.given and some), "--given takes test birds: leave out --condition-on-image and -text")
    model, vocabulary = load_trained(config)
    training = load_birds("train", model, vocabulary, config) if "feature" in model.modalities else None
    view = View(model, vocabulary, training)
    torch.manual_seed(config.seed)
    folder = config.out_dir or runs.folder_of(config.model) / "samples"
    if config.given:
        require(config.given in model.modalities, f"this model has no {config.given}: give it {model.modalities[0]}")
        birds = load_birds("test", model, vocabulary, config).take(config.n_samples)
        written = view.decoded(birds, config.given, folder / f"sample_from_{config.given}")
    elif some:
        written = view.samples(given(config, model, vocabulary), config.n_samples, folder / "sample_given")
    else:
        written = view.samples(None, config.n_samples, folder / "sample_prior")
    print(*written, sep="\n")


class Given(NamedTuple):
    """inputs: {modality: (1, ...)} of what a user gives; image: (3, 64, 64) of it, NaN for none; caption: as typed."""

    inputs: dict[str, Tensor]
    image: Tensor
    caption: str


def given(config: Config, model: MultimodalVAE, vocabulary: Vocabulary) -> Given:
    """What the options give to a model.

    Raises:
        InputError: no image, a caption without a word that the model knows, a modality that the model lacks.
    """
    inputs, image, typed = {}, torch.full((3, 64, 64), torch.nan), config.condition_on_text
    if typed is not None:
        require("caption" in model.modalities, "this model has no captions: leave out --condition-on-text")
        unknown, found = vocabulary.unknown(typed), words(typed)
        if unknown:
            print(f"unknown words, which the model takes for one: {', '.join(dict.fromkeys(unknown))}")
        require(len(unknown) < len(found), f"--condition-on-text {typed!r} has no word that the model knows")
        if len(found) >= LENGTH:
            print(f"too long by {len(found) - LENGTH + 1} words, which are left out: {' '.join(found[LENGTH - 1 :])}")
        inputs["caption"] = vocabulary.encode([typed])
    if config.condition_on_image is not None:
        require(model.modalities != ("caption",), "this model has no images: leave out --condition-on-image")
        image = torch.tensor(decode(config.condition_on_image, IMAGES, "give another")).float() / 255
        if "image" in model.modalities:
            inputs["image"] = image[None]
        elif config.demo:
            inputs["feature"] = drawn.features(image[None])
        else:
            network = features.network_of(config.cache_dir or config.data_dir)
            inputs["feature"] = features.features_of_file(network, config.condition_on_image)[None]
    device = next(model.parameters()).device
    return Given({name: x.to(device) for name, x in inputs.items()}, image, typed or "")


class View:
    """What a model generates, as pictures with captions.

    Args:
        training: the training birds, one of whose images stands for a feature: that of the nearest one.
    """

    def __init__(self, model: MultimodalVAE, vocabulary: Vocabulary, training: Birds | None = None) -> None:
        self.model, self.vocabulary, self.training = model, vocabulary, training

    def images(self, values: Mapping[str, Tensor]) -> Tensor:
        """Images (N, 3, 64, 64) of a batch of the modalities; NaN where there are captions alone."""
        if "image" in values:
            return values["image"].cpu()
        if "feature" in values:
            known = self.training.examples.modalities
            i = features.nearest(values["feature"], known["feature"].to(values["feature"].device))
            return known["image"][i.cpu()].float() / 255
        return torch.full((len(values["caption"]), 3, 64, 64), torch.nan)

    def sentences(self, values: Mapping[str, Tensor]) -> list[str]:
        """Captions of a batch of the modalities; empty where there are none."""
        if "caption" in values:
            return self.vocabulary.sentences(values["caption"].cpu())
        return [""] * len(next(iter(values.values())))

    @torch.no_grad()
    def samples(self, of: Given | None, n: int, path: Path) -> list[Path]:
        """Save what is decoded of n draws of q(z|what is given), or of the prior; the files."""
        q = self.model.posterior(of.inputs) if of else self.model.prior().expand((1,))
        values = self.model.likelihood.point(self.model.decode(q.sample((n,)).squeeze(1)))
        images, sentences = self.images(values), self.sentences(values)
        lines = sentences if "caption" in values else []
        title = f"samples given {' and '.join(of.inputs)}, at the left" if of else "samples from the prior"
        if of:
            images, sentences = torch.cat([of.image[None], images]), [of.caption or "(given)", *sentences]
        images, captions = plots.in_rows(images, sentences, COLUMNS)
        return self._save(path, images, captions, None, title, lines)

    @torch.no_grad()
    def decoded(self, birds: Birds, source: str, path: Path) -> list[Path]:
        """Save birds, and below what is decoded of a draw of q(z|one modality); the files."""
        examples = birds.examples.only(self.model.modalities)
        first = torch.arange(0, len(examples), CAPTIONS)  # one caption an image
        batch = examples[first].modalities
        batch = {name: x.to(next(self.model.parameters()).device) for name, x in batch.items()}
        z = self.model.posterior({source: batch[source]}).sample()
        values = self.model.likelihood.point(self.model.decode(z))
        photographs = birds.examples.modalities["image"].float() / 255
        rows = [
            plots.in_rows(photographs, [birds.captions[i] for i in first], COLUMNS),
            plots.in_rows(self.images(values), self.sentences(values), COLUMNS),
        ]
        images = torch.stack([images for images, _ in rows], dim=1).flatten(0, 1)
        captions = [row for pair in zip(*(captions for _, captions in rows), strict=True) for row in pair]
        labels = [f"{source}\ngiven", "decoded"] * (len(images) // 2)
        lines = self.sentences(values) if "caption" in values else []
        return self._save(path, images, captions, labels, f"decoded of a sample of q(z|{source})", lines)

    def _save(
        self,
        path: Path,
        images: Tensor,
        captions: list[list[str]],
        labels: list[str] | None,
        title: str,
        lines: list[str],
    ) -> list[Path]:
        written = [path.with_suffix(".png")]
        plots.captioned(written[0], images, captions, labels, title)
        if lines:
            written.append(path.with_suffix(".txt"))
            write_atomically(written[1], "".join(f"{line}\n" for line in lines).encode())
        return written


def draw(model: MultimodalVAE, folder: Path, train: Birds, valid: Birds | None) -> None:
    """Save the pictures of a training: samples of the prior, and decodings of each modality."""
    birds = valid or train
    view = View(model, birds.vocabulary, train)
    view.samples(None, 2 * COLUMNS, folder / "prior")
    for source in model.modalities:
        view.decoded(birds.take(2 * COLUMNS), source, folder / f"from_{source}")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
