"""Draw from a model of Omniglot's characters: new examples of a character, new characters, new alphabets.

    python sample.py trained_models --data-dir data                   test characters, and new examples of each
    python sample.py trained_models --given mine.png yours.jpg        new examples of the character in 1 to 5 images
    python sample.py trained_models --given 0965_01 0965_02 --data-dir data        the same for test images
    python sample.py trained_models --new characters                  characters from the prior, one in a row
    python sample.py trained_models --new alphabets                   (hierarchical) alphabets, one in a row
    python sample.py trained_models --alphabet Tengwar --data-dir data             (hierarchical) its new characters
    python sample.py trained_models --new styles --data-dir data      (factorial) characters in the styles of others

Writes examples.png, given_images_0965_01_0965_02.png, characters.png, given_alphabet_Tengwar.png, ..., named by what
was asked; given images are at the left. A decoder with independent pixels is shown by its mean images, which are
clearer than samples; a PixelCNN by samples.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import require
from reports import plots, sampling
from reports.options import SamplesConfig
from training import run_from_command_line
from vhe.character_sets import STYLES, images_of, in_style
from vhe.data import Characters, decode
from vhe.framework import VHE
from vhe.framework.factors import topological_order
from vhe.model import shared_latents
from vhe.trained_model import load_test, load_trained

import torch
from torch import Tensor

ROWS, GIVEN = 8, 5  # rows of a picture; most given images in a row
NEEDS = {"alphabets": ("a", "hierarchical"), "styles": ("s", "factorial")}  # the latent variable and its --model


@dataclass
class Config(SamplesConfig):
    limit: int | None = None
    """use only the first N test characters"""
    given: tuple[str, ...] | None = None
    """1 to 5 images of a character: files of any size, dark on light or light on dark, or ids of test images"""
    new: Literal["characters", "alphabets", "styles"] | None = None
    """draw these instead of new examples of given characters"""
    alphabet: str | None = None
    """draw new characters of this test alphabet"""
    n_samples: int = 8
    """new images in a row; --new styles draws one in each style"""

    def check(self) -> None:
        super().check()
        chosen = [x for x in (self.given, self.new, self.alphabet) if x is not None]
        require(len(chosen) < 2, "--given, --new and --alphabet make different pictures: give one of them")
        fits = self.new != "styles" or self.n_samples == Config.n_samples
        require(fits, "--new styles draws one image in each style: leave out --n-samples")
        if self.given is not None:
            require(1 <= len(self.given) <= GIVEN, f"--given takes 1 to {GIVEN} images, not {len(self.given)}")


@torch.no_grad()
def main(config: Config) -> Path:
    """Write a picture, print its path and return it."""
    config.check()
    model, trained = load_trained(config)
    kind = "alphabets" if config.alphabet is not None else config.new
    if kind in NEEDS:
        latent, choice = NEEDS[kind]
        require(
            latent in model.latents, f"{config.model} does not model {kind}: use a model of train.py --model {choice}"
        )
    torch.manual_seed(config.seed)
    n, folder = config.n_samples, config.samples_dir
    if config.given:
        name = sampling.name_of({"images": " ".join(Path(name).name for name in config.given)})
        given = torch.stack(given_images(config, trained))[None].to(model.device)
        title = "new examples of the character at the left"
        path = save(folder / f"{name}.png", new_examples(model, given, n), title, given)
    elif config.new == "styles":
        path = save_styles(folder, model, load_test(config, trained))
    elif config.new:
        path = save_new(folder, model, config.new, n)
    elif config.alphabet is not None:
        path = save_of_alphabet(folder, model, load_test(config, trained), config.alphabet, n)
    else:
        path = save_test(folder, model, load_test(config, trained), n)
    print(path)
    return path


def given_images(config: Config, trained: Mapping) -> list[Tensor]:
    """Load the images that --given names, files or images of the test characters: (1, 28, 28) each."""
    is_file = {name: Path(name).suffix != "" or Path(name).exists() for name in config.given}
    test = None if all(is_file.values()) else load_test(config, trained)
    return [decode(Path(name)) if is_file[name] else test.images[test.find(name)] for name in config.given]


@torch.no_grad()
def draw(model: VHE, folder: Path, train: Characters, valid: Characters | None) -> None:
    """Save the pictures of a training: new examples of characters, and new characters."""
    save_test(folder, model, valid or train, ROWS)
    for kind in ("characters", "alphabets"):
        if kind == "characters" or "a" in model.latents:
            save_new(folder, model, kind, ROWS)


def save_test(folder: Path, model: VHE, characters: Characters, n: int) -> Path:
    """Save evenly chosen characters and n new examples of each."""
    names, given = test_sets(characters)
    images = new_examples(model, given.to(model.device), n)
    return save(folder / "examples.png", images, "new examples of the characters at the left", given, names)


def save_new(folder: Path, model: VHE, kind: str, n: int) -> Path:
    """Save new characters, n examples of each in a row; or new alphabets, n characters of each."""
    latents = ("a",) if kind == "alphabets" else shared_latents(model)
    images = decoded(model, from_prior(model, latents, {}, ROWS), n)
    return save(folder / f"{kind}.png", images, f"new {kind}, one a row")


def save_of_alphabet(folder: Path, model: VHE, characters: Characters, name: str, n: int) -> Path:
    """Save new characters of an alphabet, n examples of each in a row; its code is inferred from the images beside."""
    require(
        name in characters.alphabets,
        f"there is no test alphabet {name!r}: choose from {', '.join(characters.alphabets)}",
    )
    alphabet = torch.full((ROWS,), characters.alphabets.index(name))
    given = images_of(characters.images, characters.alphabet, alphabet, n_given(characters.alphabet))
    values, _ = model.encode({"a": given.to(model.device)})
    images = decoded(model, from_prior(model, shared_latents(model), values, ROWS), n)
    title = f"new characters, one a row, of the alphabet at the left: {name}"
    return save(folder / f"{sampling.name_of({'alphabet': name})}.png", images, title, given)


def save_styles(folder: Path, model: VHE, characters: Characters) -> Path:
    """Save test characters, each in the styles of other images, which are above."""
    names, given = test_sets(characters)
    style_rows = torch.randint(len(characters.images), (len(STYLES), GIVEN))
    styled = torch.stack([in_style(characters.images[i], style) for i, style in zip(style_rows, STYLES, strict=True)])
    c, _ = model.encode({"c": given.to(model.device)})
    s, _ = model.encode({"s": styled.to(model.device)})
    c = {"c": c["c"].repeat_interleave(len(STYLES), dim=0)}
    images = decoded(model, c | {"s": s["s"].repeat(len(given), 1)})[:, 0].unflatten(0, (-1, len(STYLES)))
    images = torch.cat([styled[None, :, 0], images])
    given = torch.cat([torch.full_like(given[:1], torch.nan), given])
    title = "the characters at the left in the styles above"
    return save(folder / "styles.png", images, title, given, ["style of", *names])


def test_sets(characters: Characters) -> tuple[list[str], Tensor]:
    """Choose characters evenly; return their names and images of each, (R, GIVEN, 1, 28, 28)."""
    n = len(characters.names)
    chosen = torch.linspace(0, n - 1, min(ROWS, n)).long()
    given = images_of(characters.images, characters.character, chosen, n_given(characters.character))
    return [characters.names[i] for i in chosen], given


def n_given(labels: Tensor) -> int:
    """Return how many images to give of each group, at most GIVEN, as the labels (N,) allow."""
    return min(GIVEN, int(labels.bincount().min()))


def new_examples(model: VHE, given: Tensor, n: int) -> Tensor:
    """Draw n new examples for each support set (R, k, 1, 28, 28), each with a new code: (R, n, 1, 28, 28)."""
    values, _ = model.encode(dict.fromkeys(shared_latents(model), given.repeat_interleave(n, dim=0)))
    return decoded(model, values)[:, 0].unflatten(0, (-1, n))


def from_prior(model: VHE, names: Iterable[str], values: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Draw those of the named latent variables whose values are not known from their priors.

    Args:
        names: the latent variables to draw.
        values: {latent: (n, D)}, the known values.
        n: the number of values to draw.

    Returns:
        {latent: (n, D)}, the known and the drawn values.
    """
    values = dict(values)
    for name in topological_order(model.priors, "prior"):
        if name in names and name not in values:
            values[name] = model.p(name, values, n=n).value
    return values


def decoded(model: VHE, values: Mapping[str, Tensor], n: int = 1) -> Tensor:
    """Decode each of the values (R, D) of latent variables n times, the others drawn from their priors.

    Returns:
        (R, n, 1, 28, 28), on the CPU.
    """
    values = {name: x.repeat_interleave(n, dim=0) for name, x in values.items()}
    values = from_prior(model, model.latents, values, len(next(iter(values.values()))))
    if model.decoder.images.has_mean:
        code = torch.cat([values[name] for name in ("c", "s") if name in values], dim=1)
        images = model.decoder.images.mean(code, values["z"])
    else:
        images = model.p(model.observed, values).value
    return images.cpu().unflatten(0, (-1, n))


def save(
    path: Path, images: Tensor, title: str, given: Tensor | None = None, names: Sequence[str] | None = None
) -> Path:
    """Save rows of images (R, C, 1, 28, 28), with black ink, and given images (R, k, 1, 28, 28) at their left."""
    if given is not None:
        given = given.cpu()
        images = torch.cat([given, torch.full_like(given[:, :1], torch.nan), images], dim=1)
    plots.image_grid(path, 1 - images, names, title=title)
    return path


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
