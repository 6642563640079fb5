"""Sample a model of numbers in English and French: translate, or write numbers from the prior.

    python sample.py trained_models                                           from the prior, in both languages
    python sample.py trained_models --mixture 10                              from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-english "twenty-one"       in French
    python sample.py trained_models --condition-on-french "deux cent un"      in English
    python sample.py trained_models --reconstruct                             test numbers

Prints and writes prior.txt, mixture_10.txt, given_english_twenty-one.txt or translations.txt, named by what was asked,
a line for each number. A text's words are the most likely ones, one by one, given the mean of q(z|text). --reconstruct
marks the translations that are wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.checkpoints import load_model
from common.data import Examples
from common.errors import InputError, require
from common.models import MultimodalVAE
from reports import options, sample_files
from training import devices, run_from_command_line
from translation.data import CODES, load, names, parse
from translation.options import NoFiles


@dataclass
class Config(NoFiles, options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("condition_on_english", "condition_on_french", "reconstruct")

    n_samples: int = 24
    """numbers from the prior, or test numbers"""
    condition_on_english: str | None = None
    """a number in English words, to translate into French"""
    condition_on_french: str | None = None
    """a number in French words, to translate into English; give only one of the two"""
    reconstruct: bool = False
    """translate the first test numbers instead"""


def main(config: Config) -> None:
    """Print the texts, and save them.

    Raises:
        InputError: the options exclude each other, or a text is not made of known words.
    """
    config.check()
    texts = {"english": config.condition_on_english, "french": config.condition_on_french}
    texts = {language: text for language, text in texts.items() if text is not None}
    inputs = {language: _parsed(text, language) for language, text in texts.items()}
    require(len(inputs) < 2, "a text in both languages leaves nothing to translate: give it in one")
    require(not config.reconstruct or not inputs, "--reconstruct takes no condition: leave one of them out")
    one = not inputs or config.n_samples == Config.n_samples
    require(one, "a given text has one translation, of its mean: leave out --n-samples")
    model = load_model(config.model, "translation").to(devices.select(config.cuda))
    torch.manual_seed(config.seed)
    if config.reconstruct:
        name, lines = "translations", translations(model, load("test", config).take(slice(config.n_samples)))
    else:
        name, latents = config.sample_name(**texts), config.latents(model, lambda: load("train", config))
        lines = samples(model, inputs, config.n_samples, latents)
    folder = config.samples_dir
    print(*lines, sample_files.write_lines(folder / f"{name}.txt", lines), sep="\n")


@torch.no_grad()
def samples(model: MultimodalVAE, inputs: dict[str, Tensor], n: int, latents: Distribution | None = None) -> list[str]:
    """Return a line with the text in both languages: the inputs (1, 8) and what completes them, or n draws.

    Args:
        latents: what to draw z from in place of the prior.
    """
    device = model.device
    if inputs:
        decoded = model.reconstruct({language: x.to(device) for language, x in inputs.items()}) | inputs
    else:
        decoded = model.generate(n, latents)
    texts = [names(decoded[language], language) for language in CODES]
    return [" = ".join(line) for line in zip(*texts, strict=True)]


def translations(model: MultimodalVAE, examples: Examples) -> list[str]:
    """Return two lines for each example, its translations from and into English; wrong ones with the right text."""
    given = examples.to(model.device)[:].modalities
    lines = []
    for source, target in (tuple(CODES), tuple(CODES)[::-1]):
        translated = names(model.reconstruct({source: given[source]})[target], target)
        texts = zip(names(given[source], source), translated, names(given[target], target), strict=True)
        lines.append([f"{a} -> {b}" + (f" (wrong: {right})" if b != right else "") for a, b, right in texts])
    return [line for pair in zip(*lines, strict=True) for line in pair]


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the texts of a training run: translations.txt, and prior.txt, samples from the prior."""
    lines = {"translations": translations(model, (valid or train).take(slice(32))), "prior": samples(model, {}, 32)}
    for name, texts in lines.items():
        sample_files.write_lines(folder / f"{name}.txt", texts)


def _parsed(text: str, language: str) -> Tensor:
    """Return the ids (1, 8) of a text that an option gives."""
    try:
        return parse(text, language)
    except InputError as error:
        raise InputError(f"--condition-on-{language}: {error}") from error


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
