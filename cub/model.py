"""Networks of the models on CUB (layers of the MMVAE authors' models/vae_cub_image.py, vae_cub_sent.py and _ft.py)."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from common.authors_files import LEARNED_PRIOR, NORM, MmvaeArgs, layer
from common.checkpoints import NetworkOptions
from common.convolutions import ConvTranspose2d, FromPixel
from common.encoders_decoders import SplitLinearLayer, UnsqueezeLayer
from common.likelihoods import GroupedLikelihood, LaplaceLikelihood
from common.models import VAE, MultimodalVAE
from common.models.choices import JointEncoder
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from cub.caption_likelihood import CaptionLikelihood, VocabularyLayer
from cub.captions import LENGTH
from cub.options import AUTHORS, MODELS

from torch import nn

N_FEATURES = 2048
N_IMAGE_FLAT, N_JOINT = 512 * 4 * 4, 256
N_EMBEDDING = 128
AUTHORS_WORDS = 1590  # size of the vocabulary, which their run folders lack
LIKELIHOOD_SCALE = 0.01  # of images and of features


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    vocabulary: list[str] | None = None
    feature_network: dict[str, Any] | None = None


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Model of image (B, 3, 64, 64) in [0, 1] or feature (B, 2048), and of caption (B, 32) int64, or of one of them."""
    names, wide, n_private = MODELS[config.model].modalities, MODELS[config.model].wide, config.n_private or 0
    d = config.n_latents + n_private
    heads = (d,) * FAMILIES[config.posterior].n_params
    n_words = AUTHORS_WORDS if config.vocabulary is None else len(config.vocabulary)
    encoder, decoder = {}, {}
    if "image" in names:
        encoder["image"] = image_features().append(SplitLinearLayer(N_IMAGE_FLAT, heads))
        decoder["image"] = image_decoder(d)
    if "feature" in names:
        encoder["feature"] = feature_features().append(SplitLinearLayer(N_JOINT, heads))
        decoder["feature"] = feature_decoder(d)
    if "caption" in names:
        encoder["caption"] = caption_encoder(n_words, heads, wide)
        embedding = encoder["caption"][0]
        if FUSIONS[config.fusion].joint_encoder:
            # the decoder shares the joint encoder's embedding: training the caption's encoder must not change it
            embedding = nn.Embedding(n_words, N_EMBEDDING, padding_idx=0)
            encoder[",".join(names)] = joint_encoder(names[0], embedding, heads, wide)
        decoder["caption"] = caption_decoder(embedding, d, wide)
    likelihood = {
        "image": lambda: LaplaceLikelihood(LIKELIHOOD_SCALE, event_dims=3),
        "feature": lambda: LaplaceLikelihood(LIKELIHOOD_SCALE),
        "caption": lambda: CaptionLikelihood(decoder["caption"][-1].logits),
    }
    sizes = {"image": 3 * 64 * 64, "feature": N_FEATURES}
    return VAE(
        config.fusion if len(names) > 1 else "own",
        encoder=encoder,
        decoder=decoder,
        likelihood=GroupedLikelihood(**{name: likelihood[name]() for name in names}),
        latent_dim=config.n_latents + n_private * len(names),
        weights={names[0]: config.llik_scaling or LENGTH / sizes[names[0]]} if len(names) > 1 else {},
        posterior=config.posterior,
        learn_prior=config.learn_prior,
        private=dict.fromkeys(names, n_private) if n_private else None,
        n_clusters=config.n_clusters,
        rho=config.rho,
    )


def image_features() -> nn.Sequential:
    """Image (N, 3, 64, 64) -> features (N, N_IMAGE_FLAT)."""
    return nn.Sequential(
        *(layer for n, m in pairwise((3, 64, 128, 256, 512)) for layer in (nn.Conv2d(n, m, 4, 2, 1), nn.ReLU())),
        nn.Flatten(),
    )


def image_decoder(n_latents: int) -> nn.Sequential:
    """z (N, D) -> mean (N, 3, 64, 64) of the image, in [0, 1]."""
    return nn.Sequential(
        *(nn.Unflatten(1, (n_latents, 1, 1)), FromPixel(n_latents, 512, 4), nn.ReLU()),
        *(layer for n, m in pairwise((512, 256, 128, 64)) for layer in (ConvTranspose2d(n, m, 4, 2, 1), nn.ReLU())),
        *(ConvTranspose2d(64, 3, 4, 2, 1), nn.Sigmoid()),
    )


def feature_features() -> nn.Sequential:
    """Feature (N, 2048) -> features (N, N_JOINT)."""
    return nn.Sequential(*dense(N_FEATURES, 1024, 512, N_JOINT))


def feature_decoder(n_latents: int) -> nn.Sequential:
    """z (N, D) -> mean (N, 2048) of the feature."""
    return nn.Sequential(*dense(n_latents, 256, 512, 1024), nn.Linear(1024, N_FEATURES))


def dense(*sizes: int) -> list[nn.Module]:
    """Linear layers between the given sizes, each followed by an ELU."""
    return [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.ELU())]


# kernel, stride and padding of the caption's convolutions, over words x embedding dimensions
HALVES_BOTH, HALVES_EMBEDDING = (4, 2, 1), ((1, 4), (1, 2), (0, 1))
STAGES = (*3 * (HALVES_BOTH,), *2 * (HALVES_EMBEDDING,))  # (32, 128) -> (4, 4)


def widths(wide: bool) -> tuple[int, ...]:
    """Channels before and after each of the five convolutions of a caption network."""
    return (1, 32, 64, 128, 256, 512) if wide else (1, 32, 64, 128, 128, 128)


def caption_encoder(n_words: int, heads: tuple[int, ...], wide: bool) -> nn.Sequential:
    """Caption (N, 32) -> the posterior's parameters, (N, D) each."""
    features = caption_features(nn.Embedding(n_words, N_EMBEDDING, padding_idx=0), wide)
    return features.append(SplitLinearLayer(widths(wide)[-1] * 4 * 4, heads, bias=wide))


def caption_features(embedding: nn.Embedding, wide: bool) -> nn.Sequential:
    """Caption (N, 32) -> features (N, channels * 4 * 4); the convolutions see (N, 1, 32, 128)."""
    channels = widths(wide)
    stages = zip(pairwise(channels), STAGES, strict=True)
    return nn.Sequential(
        *(embedding, UnsqueezeLayer(1)),
        *(
            layer
            for (n, m), shape in stages
            for layer in (nn.Conv2d(n, m, *shape, bias=wide), nn.BatchNorm2d(m), nn.ReLU())
        ),
        nn.Flatten(),
    )


def joint_encoder(source: str, embedding: nn.Embedding, heads: tuple[int, ...], wide: bool) -> JointEncoder:
    """Image (N, 3, 64, 64) or feature (N, 2048), and caption (N, 32) -> the posterior's parameters, (N, D) each.

    It has the layers of the modalities' own encoders, with N_JOINT features each.
    """
    seen = feature_features() if source == "feature" else image_features().extend(dense(N_IMAGE_FLAT, N_JOINT))
    caption = caption_features(embedding, wide).extend(dense(widths(wide)[-1] * 4 * 4, N_JOINT))
    return JointEncoder({source: seen, "caption": caption}, N_JOINT, heads)


def caption_decoder(embedding: nn.Embedding, n_latents: int, wide: bool) -> nn.Sequential:
    """z (N, D) -> words (N, 32, 128), what `VocabularyLayer.logits` reads: the encoder's layers in reverse."""
    channels = widths(wide)[::-1]
    stages = zip(pairwise(channels), STAGES[::-1], strict=True)
    convolutions = [
        FromPixel(n_latents, channels[0], 4, bias=wide),
        *(ConvTranspose2d(n, m, *shape, bias=wide) for (n, m), shape in stages),
    ]
    return nn.Sequential(
        nn.Unflatten(1, (n_latents, 1, 1)),
        *(layer for conv in convolutions[:-1] for layer in (conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())),
        *(convolutions[-1], nn.ReLU(), nn.Flatten(1, 2), VocabularyLayer(embedding)),
    )


def authors(args: MmvaeArgs) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Our config from the authors' options (args.json), and which of their parameters each of ours consists of.

    Returns:
        the config, and {our parameter: names of their parameters, to be concatenated}.
    """
    model = AUTHORS[args.model]
    ours = {"model": model, "fusion": "moe", "posterior": MODELS[model].posterior, "vocabulary": None}
    return args.config() | ours, _authors_parameters(model)


def _authors_parameters(model: str) -> dict[str, tuple[str, ...]]:
    """{our parameter: names of the authors' parameters, to be concatenated} of a --model."""
    affine = ("weight", "bias")
    bias = affine if MODELS[model].wide else ("weight",)
    layers = {  # {our layer: (their layers, kinds of parameters)}, first of the caption
        "encoder.caption.0": (("vaes.1.enc.embedding",), ("weight",)),
        **{f"encoder.caption.{i + 2}": ((f"vaes.1.enc.enc.{i}",), bias) for i in range(0, 15, 3)},
        **{f"encoder.caption.{i + 2}": ((f"vaes.1.enc.enc.{i}",), NORM) for i in range(1, 15, 3)},
        "encoder.caption.18.linear": (("vaes.1.enc.c1", "vaes.1.enc.c2"), bias),
        **{f"decoder.caption.{i + 1}": ((f"vaes.1.dec.dec.{i}",), bias) for i in range(0, 18, 3)},
        **{f"decoder.caption.{i + 1}": ((f"vaes.1.dec.dec.{i}",), NORM) for i in range(1, 15, 3)},
        "decoder.caption.19": (("vaes.1.dec.toVocabSize",), affine),
    }
    if model == "images":
        layers |= {
            **{f"encoder.image.{i}": ((f"vaes.0.enc.enc.{i}",), affine) for i in (0, 2, 4, 6)},
            "encoder.image.9.linear": (("vaes.0.enc.c1", "vaes.0.enc.c2"), affine),
            **{f"decoder.image.{i + 1}": ((f"vaes.0.dec.dec.{i}",), affine) for i in (0, 2, 4, 6, 8)},
        }
    else:
        layers |= {
            **{f"encoder.feature.{2 * i}": ((f"vaes.0.enc.enc.layer{i}.0",), affine) for i in range(3)},
            "encoder.feature.6.linear": (("vaes.0.enc.fc21", "vaes.0.enc.fc22"), affine),
            "decoder.feature.0": (("vaes.0.dec.dec.out_t.0",), affine),
            **{f"decoder.feature.{2 * i}": ((f"vaes.0.dec.dec.layer{i}_t.0",), affine) for i in (1, 2)},
            "decoder.feature.6": (("vaes.0.dec.fc31",), affine),
        }
    names = {}
    for ours, (theirs, kinds) in layers.items():
        names |= layer(ours, *theirs, kinds=kinds)
    return names | LEARNED_PRIOR
