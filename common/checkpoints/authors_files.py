"""The models that the original authors' code saved: MVAE's dict of parameters, MMVAE's folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from common.checkpoints.experiment_modules import MVAE_EXPERIMENTS, module_of
from common.errors import InputError, require
from common.io import read_json

Size, Depth = Annotated[int, msgspec.Meta(ge=1, le=10**6)], Annotated[int, msgspec.Meta(ge=1, le=1000)]
MMVAE_EXPERIMENTS = {"mnist_svhn": "mnist_svhn", "cubIS": "cub", "cubISft": "cub"}  # by the authors' --model
# what the MMVAE authors' code leaves in a run's folder: parameters, options, and the options as a pickled object
MMVAE_MODEL, MMVAE_OPTIONS, MMVAE_PICKLE = "model.rar", "args.json", "args.rar"
MMVAE_REMEDY = (
    f"reading that pickle could run code, so make {MMVAE_OPTIONS} from it yourself. In its folder, in the authors' "
    f"environment (torch 1.3): python -c \"import json, torch; json.dump(vars(torch.load('{MMVAE_PICKLE}')), "
    f"open('{MMVAE_OPTIONS}', 'w'))\""
)


LEARNED_PRIOR = {"prior.loc": ("_pz_params.0",), "prior.scale": ("_pz_params.1",)}  # ours, and MMVAE's
WEIGHT, NORM = ("weight",), ("weight", "bias", "running_mean", "running_var")  # kinds of parameters of layers


def layer(ours: str, *theirs: str, kinds: Sequence[str] = ("weight", "bias")) -> dict[str, tuple[str, ...]]:
    """{parameter of our layer: those of the authors' layers, which are concatenated in ours}."""
    return {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for kind in kinds}


MVAE_IMAGE = {  # our parameters -> those of MVAE's image networks of MultiMNIST and CelebA
    **layer("encoder.image.0", "image_encoder.features.0", kinds=WEIGHT),
    **layer("encoder.image.2", "image_encoder.features.2", kinds=WEIGHT),
    **layer("encoder.image.3", "image_encoder.features.3", kinds=NORM),
    **layer("encoder.image.5", "image_encoder.features.5", kinds=WEIGHT),
    **layer("encoder.image.6", "image_encoder.features.6", kinds=NORM),
    **layer("encoder.image.8", "image_encoder.features.8", kinds=WEIGHT),
    **layer("encoder.image.9", "image_encoder.features.9", kinds=NORM),
    **layer("encoder.image.12", "image_encoder.classifier.0"),
    **layer("encoder.image.15.linear", "image_encoder.classifier.3"),
    **layer("decoder.image.0", "image_decoder.upsample.0"),
    **layer("decoder.image.3", "image_decoder.hallucinate.0", kinds=WEIGHT),
    **layer("decoder.image.4", "image_decoder.hallucinate.1", kinds=NORM),
    **layer("decoder.image.6", "image_decoder.hallucinate.3", kinds=WEIGHT),
    **layer("decoder.image.7", "image_decoder.hallucinate.4", kinds=NORM),
    **layer("decoder.image.9", "image_decoder.hallucinate.6", kinds=WEIGHT),
    **layer("decoder.image.10", "image_decoder.hallucinate.7", kinds=NORM),
    **layer("decoder.image.12", "image_decoder.hallucinate.9", kinds=WEIGHT),
}


class TrainedModel(NamedTuple):
    """What a checkpoint holds.

    experiment: the name of its experiment.
    config: the options that its model was trained with.
    state_dict: our model -> the checkpoint's parameters under our names, in the shapes of that model.
    """

    experiment: str
    config: dict[str, Any]
    state_dict: Callable[[nn.Module], Mapping[str, Tensor]]


class MmvaeArgs(msgspec.Struct):
    """The options of the MMVAE authors' code that determine a model or its likelihoods (args.json)."""

    model: Literal[tuple(MMVAE_EXPERIMENTS)]
    latent_dim: Size
    learn_prior: bool
    llik_scaling: float
    num_hidden_layers: Depth = 1
    obj: str | None = None
    K: int | None = None
    looser: bool | None = None
    batch_size: int | None = None
    epochs: int | None = None

    def config(self) -> dict[str, Any]:
        """The options that all experiments have, under our names."""
        training = {name: getattr(self, name) for name in ("obj", "K", "looser", "batch_size", "epochs")}
        if self.obj == "elbo":  # theirs draws one sample, whatever K and looser are
            training |= {"obj": "elbo-importance", "K": 1, "looser": False}
        model = {"n_latents": self.latent_dim, "learn_prior": self.learn_prior, "llik_scaling": self.llik_scaling}
        return model | {name: value for name, value in training.items() if value is not None}


def read_mvae(checkpoint: dict, path: Path) -> TrainedModel:
    """The MVAE authors' dict (state_dict, n_latents, best_loss, optimizer), recognised by its parameters' names.

    An experiment's module has `AUTHORS`, {our parameter: theirs, to be concatenated}, and `AUTHORS_OPTIONS`, the
    options with which our `build` makes their model.
    """
    parameters = checkpoint.get("state_dict")
    for name in MVAE_EXPERIMENTS:
        module = module_of(name)
        expected = {key for keys in module.AUTHORS.values() for key in keys}
        if isinstance(parameters, dict) and "n_latents" in checkpoint and without_counts(parameters) == expected:
            config = {"n_latents": checkpoint["n_latents"], **module.AUTHORS_OPTIONS}
            return TrainedModel(name, config, lambda model, layout=module.AUTHORS: _renamed(parameters, layout, model))
    raise InputError(
        f"{path} is not a checkpoint of this repository or of the authors': give the model_best.pth.tar of a run"
    )


def read_mmvae(checkpoint: dict, path: Path) -> TrainedModel:
    """The MMVAE authors' state dict; the run's options lie beside it. Parameters that nothing uses are left out."""
    options, pickle = path.with_name(MMVAE_OPTIONS), path.with_name(MMVAE_PICKLE)
    require(options.is_file() or not pickle.is_file(), f"{options} is missing beside {pickle}: {MMVAE_REMEDY}")
    args = read_json(options, MmvaeArgs, f"{path.name} needs it, copy it from the authors' run")
    name = MMVAE_EXPERIMENTS[args.model]
    config, layout = module_of(name).authors(args)
    return TrainedModel(name, config, lambda model: _renamed(checkpoint, layout, model))


def _renamed(
    parameters: Mapping[str, Tensor], layout: Mapping[str, tuple[str, ...]], model: nn.Module
) -> dict[str, Tensor]:
    """Our state dict from the authors' parameters: those of each key of ours concatenated, in the model's shapes."""
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    return {ours: torch.cat([parameters[key] for key in keys]).reshape(shapes[ours]) for ours, keys in layout.items()}


def without_counts(parameters: Mapping[str, Tensor]) -> set:
    """The names of parameters without batch norm's counters, which the authors' torch lacked and nothing uses."""
    return {key for key in parameters if not str(key).endswith("num_batches_tracked")}
