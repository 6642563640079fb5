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

from common.data import Examples
from common.errors import require
from common.models import MultimodalVAE
from reports import options, sampling
from training import run_from_command_line
from translation.data import CODES, load, names, parse
from translation.options import NoFiles

import torch
from torch import Tensor
from torch.distributions import Distribution


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
    inputs = {}
    for language, text in texts.items():
        with sampling.errors_begin_with(f"--condition-on-{language}: "):
            inputs[language] = parse(text, language)
    require(len(inputs) < 2, "a text in both languages leaves nothing to translate: give it in one")
    require(not config.reconstruct or not inputs, "--reconstruct takes no condition: leave one of them out")
    one = not inputs or config.n_samples == Config.n_samples
    require(one, "a given text has one translation, of its mean: leave out --n-samples")
    model = config.trained_model("translation")
    torch.manual_seed(config.seed)
    path = config.path(texts).with_suffix(".txt")
    if config.reconstruct:
        path = path.with_name("translations.txt")
        lines = translations(model, load("test", config).take(slice(config.n_samples)))
    else:
        latents = config.latents(model, lambda: load("train", config))
        lines = samples(model, inputs, config.n_samples, latents)
    print(*lines, sampling.write_lines(path, lines), sep="\n")


def samples(model: MultimodalVAE, inputs: dict[str, Tensor], n: int, latents: Distribution | None = None) -> list[str]:
    """Return a line with the text in both languages: the inputs (1, 8) and what completes them, or n draws.

    Args:
        latents: what to draw z from in place of the prior.
    """
    on_device = {language: x.to(model.device) for language, x in inputs.items()}
    decoded = model.reconstruct(on_device) | inputs if inputs else model.generate(n, latents)
    return [" = ".join(line) for line in zip(*(names(decoded[x], x) for x in CODES), strict=True)]


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
        sampling.write_lines(folder / f"{name}.txt", texts)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
