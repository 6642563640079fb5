"""How things are computed: what is decoded when, in which amount of memory, on which device."""

from common.execution.decoder import Decoder
from common.execution.plain import PlainDecoder

__all__ = ["Decoder", "PlainDecoder"]
