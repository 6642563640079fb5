"""Checkpoints of every kind of model from a few lines of JSON: parameters by formula, and numbers that show them.

It uses only what every version of the repository has, so that an older one can write what a newer one must meet.
"""

from celeba.attributes import ATTRIBUTES
from common.io import save_tensors
from tests.reference import fill

import torch

N = 2  # examples
IMAGES = {
    "mnist": {"image": (1, 28)},
    "fashionmnist": {"image": (1, 28)},
    "celeba": {"image": (3, 64)},
    "celeba19": {"image": (3, 64)},
    "vision": {
        name: (1 if name in ("gray", "edge", "mask") else 3, 64)
        for name in ("image", "gray", "edge", "mask", "obscured", "watermark")
    },
    "mnist_svhn": {"mnist": (1, 28), "svhn": (3, 32)},
    "cub": {"image": (3, 64)},
}  # {experiment: {modality: (channels, size)}}


def write(path, experiment, config, shapes):
    """A model_best.pth.tar of the layout that train.py has always written, with parameters filled by formula."""
    empty = {key: torch.empty(shape) for key, shape in shapes.items()}
    filled = fill.fill({key: x for key, x in empty.items() if x.numel()})
    about = {"experiment": experiment, "config": config, "command": "python train.py", "started": "", "commit": None}
    about |= {"versions": {"python": "3.11.7", "torch": "2.13.0+cpu"}, "threads": 1, "resumed_from": []}
    state = {"epoch": 1, "batch": 0, "sums": {}, "n": 0, "seconds": 0.0, "best": -1.0, "best_epoch": 1, "n_train": 50}
    save_tensors(path, about | state | {"state_dict": empty | filled})


def shapes(model):
    """{key: shape} of a model's state dict."""
    return {key: list(x.shape) for key, x in model.state_dict().items()}


def inputs_of(model, experiment, config):
    """N examples of all modalities."""
    inputs = {name: fill.image(N, *shape) for name, shape in IMAGES.get(experiment, {}).items()}
    n_words = 1590 if config.get("vocabulary") is None else len(config["vocabulary"])  # of the authors' files
    inputs |= {
        "text": fill.integers("text", (N,), 10),
        "attrs": fill.integers("attrs", (N, 18), 2).float(),
        "feature": fill.wave("feature", (N, 2048)),
        "caption": fill.integers("caption", (N, 32), n_words),
        **{name: fill.integers(name, (N,), 2) for name in ATTRIBUTES},
        **{
            name: fill.image(N, 1, 28).flatten(1)[:, part]
            for name, part in {"top": slice(392), "bottom": slice(392, 784)}.items()
        },
        "halves": fill.image(N, 1, 28).view(N, 2, 392),
        "pixel": fill.image(N, 1, 28).view(N, 784, 1),
    }
    return {name: inputs[name] for name in model.modalities}


def probe(x):
    """One number that no two parameters can change places in."""
    return (x.double() * fill.wave("probe", tuple(x.shape)).double()).sum().item()


@torch.no_grad()
def values_of(model, experiment, config):
    """{name: number} that all parameters of a model have a part in."""
    if experiment == "vhe":
        return values_of_homoencoder(model)
    inputs = inputs_of(model, experiment, config)
    batch = model.observe(inputs)
    params = model.experts(batch)
    values = {f"experts' parameter {i}": probe(p) for i, p in enumerate(params)}
    z = model.prior().project(fill.wave("z", (N, config["n_latents"])))
    energy = getattr(model.variational_posterior, "energy", None)
    if energy is None:
        batch = model.observe(inputs)
        q = model.fuse(model.experts(batch), batch.mask)
        values |= {"posterior's mean": probe(q.mean), "log q(z|x)": q.log_prob(z).sum().item()}
    else:
        values["energy"] = energy(z).sum().item()
    values["log p(z)"] = model.prior().log_prob(z).sum().item()
    decoded = model.decode(z, given=inputs)
    return values | {f"log p({name}|z)": p.log_prob(inputs[name]).sum().item() for name, p in decoded.items()}


def values_of_homoencoder(model):
    """The bound of N images, with the noise of one seed, and its terms."""
    supports = {name: (fill.wave(f"support {name}", (N, 3, 1, 28, 28)) > 0.5).float() for name in model.latents}
    x = (fill.wave("x", (N, 1, 28, 28)) > 0.5).float()
    torch.manual_seed(0)
    bound = model.bound(supports, {name: torch.full((N,), 20.0) for name in model.latents}, x=x)
    return {"bound": bound.value.sum().item(), **{name: term.sum().item() for name, term in bound.terms.items()}}
