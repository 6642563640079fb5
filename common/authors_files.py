"""The layouts of the original authors' files: their parameters under our names, and MMVAE's options."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

Size, Depth = Annotated[int, msgspec.Meta(ge=1, le=10**6)], Annotated[int, msgspec.Meta(ge=1, le=1000)]
MMVAE_EXPERIMENTS = {"mnist_svhn": "mnist_svhn", "cubIS": "cub", "cubISft": "cub"}  # by the authors' --model
LEARNED_PRIOR = {"prior.loc": ("_pz_params.0",), "prior.scale": ("_pz_params.1",)}  # ours, and MMVAE's
WEIGHT, NORM = ("weight",), ("weight", "bias", "running_mean", "running_var")  # kinds of parameters of layers


def layer(ours: str, *theirs: str, kinds: Sequence[str] = ("weight", "bias")) -> dict[str, tuple[str, ...]]:
    """{parameter of our layer: those of the authors' layers, which are concatenated in ours}."""
    return {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for kind in kinds}


# our parameters -> those of MVAE's image networks of MultiMNIST and CelebA
MVAE_IMAGE = layer("encoder.image.12", "image_encoder.classifier.0")
MVAE_IMAGE |= layer("encoder.image.15.linear", "image_encoder.classifier.3")
MVAE_IMAGE |= layer("decoder.image.0", "image_decoder.upsample.0")
for i, kinds in {0: WEIGHT, 2: WEIGHT, 3: NORM, 5: WEIGHT, 6: NORM, 8: WEIGHT, 9: NORM}.items():
    MVAE_IMAGE |= layer(f"encoder.image.{i}", f"image_encoder.features.{i}", kinds=kinds)
for i, kinds in {0: WEIGHT, 1: NORM, 3: WEIGHT, 4: NORM, 6: WEIGHT, 7: NORM, 9: WEIGHT}.items():
    MVAE_IMAGE |= layer(f"decoder.image.{i + 3}", f"image_decoder.hallucinate.{i}", kinds=kinds)


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
