"""The model of six pieces in a plain ModuleDict."""

from common.encoders_decoders import NetworkList
from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.multimodal_vae import MultimodalVAE

from torch import nn

PIECES = ("encoder", "variational_strategy", "variational_posterior", "decoder", "likelihood", "prior")


def assembled(pieces: nn.ModuleDict) -> MultimodalVAE:
    """The model of six pieces in a plain ModuleDict, as in poe-vae's README; its modalities are "0", "1", ...

    Args:
        pieces: encoder (a NetworkList, or a network on a set of elements, which is modality "0"), variational_strategy,
            variational_posterior, decoder (a NetworkList, or one network of all modalities), likelihood, prior.

    Raises:
        InputError: a piece is missing, or encoders and decoders differ in number.
    """
    lacking = [name for name in PIECES if name not in pieces]
    require(not lacking, f"a VAE is made of {', '.join(PIECES)}: this one lacks {', '.join(lacking)}")
    encoder, decoder, likelihood = (pieces[name] for name in ("encoder", "decoder", "likelihood"))
    encoders = list(encoder.networks) if isinstance(encoder, NetworkList) else [encoder]
    names = [str(i) for i in range(len(encoders))]
    decoders = None
    if isinstance(decoder, NetworkList):
        n, m = len(names), len(decoder.networks)
        require(n == m, f"there are {n} encoders and {m} decoders: give the same number of each")
        decoders = dict(zip(names, decoder.networks, strict=True))
    return MultimodalVAE(
        encoder=dict(zip(names, encoders, strict=True)),
        decoder=decoders or {",".join(names): decoder},
        likelihood=likelihood if isinstance(likelihood, GroupedLikelihood) else GroupedLikelihood(likelihood),
        **{name: pieces[name] for name in ("variational_strategy", "variational_posterior", "prior")},
    )
