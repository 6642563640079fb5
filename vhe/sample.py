"""Sample a model of Omniglot's characters: new examples of a character, new characters, new alphabets.

    python sample.py trained_models --data-dir data                   test characters, and new examples of each
    python sample.py trained_models --given mine.png yours.jpg        examples of the character in 1 to 5 images
    python sample.py trained_models --given 0965_01 0965_02 --data-dir data        the same, of test images
    python sample.py trained_models --new characters                  from the prior, a row each
    python sample.py trained_models --new alphabets                   (hierarchical) a row of new characters each
    python sample.py trained_models --alphabet Tengwar --data-dir data             (hierarchical) new characters of it
    python sample.py trained_models --new styles --data-dir data      (factorial) characters in the styles of others

Writes sample_test.png, sample_given.png, sample_characters.png, ...; what is given is at the left. Of a decoder whose
pixels are independent its means are shown, since they are clearer; a PixelCNN's images are draws.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from common import plots, runs
from common.errors import require
from common.options import ModelConfig
from vhe.data import Characters, decode
from vhe.estimators import encode
from vhe.factors import in_order
from vhe.homoencoder import VHE
from vhe.model import IndependentPixels
from vhe.styles import STYLES, drawn
from vhe.trained import codes, device_of, images_of, load_test, load_trained

ROWS, GIVEN = 8, 5  # test characters; images of each that are given
OF_MODEL = {"alphabets": ("a", "hierarchical"), "styles": ("s", "factorial")}  # what, and which --model, a kind needs


@dataclass
class Config(ModelConfig):
    limit: int | None = None
    """use the first N test characters"""
    given: tuple[str, ...] | None = None
    """1 to 5 images of a character: files (of any size, dark on light or light on dark), or ids of test images"""
    new: Literal["characters", "alphabets", "styles"] | None = None
    """what to make up instead of examples of given characters"""
    alphabet: str | None = None
    """make up characters of this test alphabet"""
    n_samples: int = 8
    """new images a row; of --new styles one in each"""
    out_dir: Path | None = None
    """where to write; default: samples/ beside the model"""

    def check(self) -> None:
        super().check()
        chosen = [x for x in (self.given, self.new, self.alphabet) if x is not None]
        require(len(chosen) < 2, "--given, --new and --alphabet make pictures of their own: give one of them")
        if self.given is not None:
            require(1 <= len(self.given) <= GIVEN, f"--given takes 1 to {GIVEN} images, not {len(self.given)}")


@torch.no_grad()
def main(config: Config) -> Path:
    """
    Returns:
        the picture.
    """
    config.check()
    model, trained = load_trained(config)
    kind = "alphabets" if config.alphabet is not None else config.new
    if kind in OF_MODEL:
        name, choice = OF_MODEL[kind]
        require(name in model.latents, f"{config.model} knows no {kind}: that takes one of train.py --model {choice}")
    torch.manual_seed(config.seed)
    n, folder = config.n_samples, config.out_dir or runs.folder_of(config.model) / "samples"
    path = folder / f"sample_{config.new or ('given' if config.given else config.alphabet or 'test')}.png"
    if config.given:
        given = torch.stack(given_images(config, trained))[None].to(device_of(model))
        save(path, examples(model, given, n), given, title="new examples of the character at the left")
    elif config.new == "styles":
        save_styles(path, model, load_test(config, trained))
    elif config.new:
        save_new(path, model, config.new, n)
    elif config.alphabet is not None:
        save_of_alphabet(path, model, load_test(config, trained), config.alphabet, n)
    else:
        save_test(path, model, load_test(config, trained), n)
    print(path)
    return path


def given_images(config: Config, trained: Mapping) -> list[Tensor]:
    """The images that --given names, (1, 28, 28) each: files, or those of the test characters."""
    files = [Path(name).suffix != "" or Path(name).exists() for name in config.given]
    test = None if all(files) else load_test(config, trained)
    return [
        decode(Path(name)) if file else test.images[test.find(name)]
        for name, file in zip(config.given, files, strict=True)
    ]


@torch.no_grad()
def draw(model: VHE, characters: Characters, folder: Path) -> None:
    """The pictures that training leaves."""
    save_test(folder / "examples.png", model, characters, ROWS)
    for kind in ("characters", "alphabets"):
        if kind == "characters" or "a" in model.latents:
            save_new(folder / f"{kind}.png", model, kind, ROWS)


def save_test(path: Path, model: VHE, characters: Characters, n: int) -> None:
    """Characters, evenly chosen, and new examples of each."""
    names, given = test_sets(characters)
    save(
        path, examples(model, given.to(device_of(model)), n), given, names, "new examples of the characters at the left"
    )


def save_new(path: Path, model: VHE, kind: str, n: int) -> None:
    """New characters, several examples of each; or new alphabets, several characters of each."""
    values = from_prior(model, ("a",) if kind == "alphabets" else codes(model), {}, ROWS)
    save(path, decoded(model, repeated(values, n)).unflatten(0, (ROWS, n)), title=f"new {kind}, one a row")


def save_of_alphabet(path: Path, model: VHE, characters: Characters, name: str, n: int) -> None:
    """New characters of an alphabet, a row each; its code is inferred from the images beside."""
    require(name in characters.alphabets, f"there is no test alphabet {name!r}: {', '.join(characters.alphabets)}")
    alphabet = torch.full((ROWS,), characters.alphabets.index(name))
    given = images_of(characters.images, characters.alphabet, alphabet, few(characters.alphabet))
    values, _ = encode(model, {"a": given.to(device_of(model))}, {})
    values = from_prior(model, codes(model), values, ROWS)
    images = decoded(model, repeated(values, n)).unflatten(0, (ROWS, n))
    save(path, images, given, title=f"new characters, one a row, of the alphabet at the left: {name}")


def save_styles(path: Path, model: VHE, characters: Characters) -> None:
    """Test characters, each in the styles of other images, which are above."""
    names, given = test_sets(characters)
    others = torch.randint(len(characters.images), (len(STYLES), GIVEN))
    styled = torch.stack([drawn(characters.images[i], style) for i, style in zip(others, STYLES, strict=True)])
    c, _ = encode(model, {"c": given.to(device_of(model))}, {})
    s, _ = encode(model, {"s": styled.to(device_of(model))}, {})
    values = repeated(c, len(STYLES)) | {"s": s["s"].repeat(len(given), 1)}
    images = decoded(model, values).unflatten(0, (len(given), len(STYLES)))
    images = torch.cat([styled[None, :, 0], images])
    given = torch.cat([torch.full_like(given[:1], torch.nan), given])
    save(path, images, given, ["style of", *names], "the characters at the left in the styles above")


def test_sets(characters: Characters) -> tuple[list[str], Tensor]:
    """Names of characters, evenly chosen, and images of each (R, GIVEN, 1, 28, 28)."""
    n = len(characters.names)
    chosen = torch.linspace(0, n - 1, min(ROWS, n)).long()
    given = images_of(characters.images, characters.character, chosen, few(characters.character))
    return [characters.names[i] for i in chosen], given


def few(labels: Tensor) -> int:
    """How many images to give of each label (N,)."""
    return min(GIVEN, int(labels.bincount().min()))


def examples(model: VHE, given: Tensor, n: int) -> Tensor:
    """New examples (R, n, 1, 28, 28), each of a code of its own, given support sets (R, k, 1, 28, 28)."""
    values, _ = encode(model, dict.fromkeys(codes(model), given.repeat_interleave(n, dim=0)), {})
    return decoded(model, values).unflatten(0, (len(given), n))


def from_prior(model: VHE, names: Iterable[str], values: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """Values of latent variables, drawn from the prior but for the known ones: {name: (n, D)}."""
    values = dict(values)
    for name in in_order(model.priors, "prior"):
        if name in names and name not in values:
            values[name] = model.call(model.prior[name], model.priors[name], values, None, n=n).value
    return values


def repeated(values: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    return {name: x.repeat_interleave(n, dim=0) for name, x in values.items()}


def decoded(model: VHE, values: Mapping[str, Tensor]) -> Tensor:
    """Images (N, 1, 28, 28) of some latent variables' values (N, D), the others drawn from the prior."""
    values = from_prior(model, model.latents, values, len(next(iter(values.values()))))
    if isinstance(model.decoder.images.pixels, IndependentPixels):
        code = torch.cat([values[name] for name in ("c", "s") if name in values], dim=1)
        return model.decoder.images.mean(code, values["z"]).cpu()
    return model.call(model.decoder, model.likelihood, values, None).value.cpu()


def save(path: Path, images: Tensor, given: Tensor | None = None, names: Iterable[str] = (), title: str = "") -> None:
    """Save rows of images (R, C, 1, 28, 28), ink black, with the given ones (R, k, 1, 28, 28) at their left."""
    if given is not None:
        given = given.cpu()
        images = torch.cat([given, torch.full_like(given[:, :1], torch.nan), images], dim=1)
    plots.image_grid(path, 1 - images, list(names) or None, title=title)


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
