"""The strategy protocol: what a strategy in another process and the host say to each other.

`messages` is every message, `codec` how one is written. The page for people who write a client in any
language is `docs/strategy-protocol.md`.
"""

from host.wire.codec import JSON, MSGPACK, Codec, CodecError, codec_named, codec_of

__all__ = ["JSON", "MSGPACK", "Codec", "CodecError", "codec_named", "codec_of"]
