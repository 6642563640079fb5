"""Files as the original authors' code leaves them, filled by tests/reference/fill.py."""

import json
from pathlib import Path

from cub.captions import SPECIAL
from tests.reference import fill

import torch

REFERENCE = Path(__file__).parents[1] / "reference"
LAYOUTS = json.loads((REFERENCE / "layouts.json").read_text())


def authors_file(path, experiment="mnist", n_latents=64, **options):
    """A checkpoint as the authors' train.py writes it, with parameters filled by formula."""
    state_dict = fill.fill({name: torch.empty(shape) for name, shape in LAYOUTS[experiment].items()})
    checkpoint = {"state_dict": state_dict, "best_loss": 1.0, "n_latents": n_latents, "optimizer": {"state": {}}}
    torch.save(checkpoint, path, **options)
    return path


ARGS = {
    "cubIS": {"model": "cubIS", "latent_dim": 128, "llik_scaling": 0.0},
    "cubISft": {"model": "cubISft", "latent_dim": 64, "llik_scaling": 0.002},
}
WORDS = [*SPECIAL, *(f"word{i}" for i in range(9))]


def authors_folder(folder, name):
    """A run's folder as the MMVAE authors' code leaves it, the embedding tied as there."""
    state_dict = fill.fill({key: torch.empty(shape) for key, shape in LAYOUTS[name].items()})
    state_dict["vaes.1.enc.embedding.weight"] = state_dict["vaes.1.dec.toVocabSize.weight"].clone()
    torch.save(state_dict, folder / "model.rar", _use_new_zipfile_serialization=False)
    args = ARGS[name] | {"learn_prior": True, "obj": "dreg", "K": 50, "looser": True, "batch_size": 64, "epochs": 50}
    (folder / "args.json").write_text(json.dumps(args))
    return {key: x.double() for key, x in state_dict.items()}
