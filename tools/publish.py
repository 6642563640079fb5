"""Publish a trained model: its weights as safetensors, its options, and a model card.

    python -m tools.publish trained_models published                     write the folder published
    python -m tools.publish trained_models published --repo OWNER/NAME   also upload it to the Hugging Face hub

`load_model("published")` and all scripts open such a folder like that of a run.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from common.checkpoints import BEST, EXPERIMENTS, OPTIONS, PUBLISHED, ModelCheckpoint, load
from common.errors import InputError, brief, install, require
from common.io import folder_of, write_atomically
from training.command_line import run_from_command_line
from training.options import NOT_OF_THE_RUN
from training.runs import Epoch, read_metrics

import tyro

CARD = "README.md"


@dataclass
class Config:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """a run's folder for its best model, or a checkpoint"""
    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    """folder to write, which must not hold a model yet"""
    repo: str | None = None
    """also upload the folder to this repository of the Hugging Face hub, OWNER/NAME, which is made if there is none;
    `hf auth login` asks for the token"""


def main(config: Config) -> None:
    """Write the folder, and upload it if asked to."""
    named = config.repo is None or re.fullmatch(r"[\w.-]+/[\w.-]+", config.repo)
    require(named, f"--repo {config.repo}: give OWNER/NAME")
    write(config.model, config.folder)
    print(f"{config.folder}: read {CARD} before you publish it")
    if config.repo is not None:
        print(push(config.folder, config.repo))


def write(model: Path, folder: Path) -> None:
    """Write a run's model as model.safetensors, config.json and README.md.

    Paths and other options that are not the run's are left out.

    Raises:
        InputError: the model is unusable, the folder holds one of the files, or safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise InputError(f"publishing needs safetensors: {install('safetensors')}") from error
    existing = [name for name in (PUBLISHED, OPTIONS, CARD) if (folder / name).exists()]
    require(not existing, f"{folder} holds {', '.join(existing)} already: choose another folder")
    path = model / BEST if model.is_dir() else model
    checkpoint = load(path)
    saved = load(path, ModelCheckpoint)
    options = {name: value for name, value in saved.config.items() if name not in NOT_OF_THE_RUN}
    about = {"format": saved.format, "experiment": saved.experiment, "config": options}
    about |= {name: checkpoint[name] for name in ("commit", "versions", "epoch") if name in checkpoint}
    try:  # of a checkpoint of anybody's: tensors, sets and bytes are loaded too
        written = json.dumps(about, indent=2, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} holds options that JSON cannot hold ({brief(error)}): remove them from it") from error
    lines = [line for line in read_metrics(folder_of(model)) if line["epoch"] == about.get("epoch")]
    # safetensors refuses parameters that share memory, and layouts such as channels-last: each gets memory of its own
    copies = {name: x.clone().contiguous() for name, x in saved.state_dict.items()}
    weights = save(copies)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): choose another folder") from error
    write_atomically(folder / PUBLISHED, weights)
    write_atomically(folder / OPTIONS, written)
    write_atomically(folder / CARD, card(about, lines[-1] if lines else None).encode())


def card(about: dict[str, Any], line: Epoch | None) -> str:
    """The model card.

    Args:
        about: as in config.json.
        line: the epoch's metrics.
    """
    experiment, config = about["experiment"], about["config"]
    data = "built-in data (`--demo`)" if config.get("demo") else f"the training split of {experiment}"
    names = ("model", "fusion", "posterior", "obj", "objective", "optimizer", "epochs", "seed")
    chosen = {name: "the model's own" if config[name] is None else config[name] for name in names if name in config}
    options = "".join(f"| {name} | {value} |\n" for name, value in chosen.items())
    splits = {split: line[split] for split in ("train", "valid") if line and split in line}
    metrics = "".join(f"| {s} | {name} | {x:.3f} |\n" for s, values in splits.items() for name, x in values.items())
    if experiment in EXPERIMENTS:
        folder = EXPERIMENTS[experiment].partition(".")[0]
        script, build, scripts = "", "", f"\nThe scripts of the library's folder {folder} open it too.\n"
    else:
        script, build, scripts = "from SCRIPT import build  # the script that trained it\n", ", build=build", ""
    return f"""---
library_name: multimodal-vaes
tags: [multimodal-vae, {experiment}]
---

# {experiment}: a multimodal VAE

Trained on {data} with *Multimodal VAEs*, a reference library. config.json has all options.

| option | value |
|---|---|
{options}
## Metrics

Means over examples after epoch {about.get("epoch", "?")}, in nats. bound: what training maximises;
SUBSET/MODALITY: log p(MODALITY|z), with z drawn from the posterior given the SUBSET, and 0 for examples that lack the
MODALITY; SUBSET/kl: its KL from the prior.

| split | metric | value |
|---|---|---|
{metrics}
## Use

In the library's folder, with this folder as `published`:

```python
from common.checkpoints import load_model
{script}
model = load_model("published"{build})
```
{scripts}
## Licence and citation

The library has the MIT licence. The licence of the data may bind the weights too. Cite the paper of the model, which
the library's CITATION.cff lists.
"""


def push(folder: Path, repo: str) -> str:
    """Upload a written folder to a repository of the Hugging Face hub; returns its address.

    Raises:
        InputError: the hub refuses it or does not answer, or huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, HTTPError
    except ImportError as error:
        raise InputError(f"--repo needs huggingface_hub: {install('huggingface_hub')}") from error
    api = HfApi()
    try:
        address = api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=[PUBLISHED, OPTIONS, CARD])
    except (HTTPError, HFValidationError) as error:
        later = f"{folder} is written, upload it later with hf upload {repo} {folder}"
        raise InputError(f"--repo {repo}: {brief(error)}: {later}") from error
    return str(address)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
