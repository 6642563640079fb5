"""Blocks that the experiments' networks are built from. Networks see (N, ...): the model flattens (K, B) to N."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "convolutions": ["Conv2d", "ConvTranspose2d", "FromPixel"],
        "blocks": [
            "ConcatLayer",
            "GatherLayer",
            "ModalityEmbedding",
            "NetworkList",
            "SharedNetwork",
            "SplitLinearLayer",
            "SqueezeLayer",
            "StackedDecoder",
            "StackedLinear",
            "UnsqueezeLayer",
            "expert_params",
            "expert_params_where",
            "has_batch_norm",
            "is_repeatable",
            "outputs",
            "swish_mlp",
            "zero_where_absent",
        ],
    },
)
