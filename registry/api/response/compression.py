"""Compression of large responses, with an encoding that the client accepts."""

import asyncio
from collections.abc import Sequence

import zstandard
from isal import isal_zlib

# Smaller bodies are not worth the time. Larger ones are compressed in a thread.
_MIN_COMPRESSED_BYTES = 16 * 1024
_MIN_THREADED_BYTES = 256 * 1024
# zlib's value for a gzip stream with the largest window.
_GZIP_WBITS = 31


async def compress(parts: Sequence[bytes], accept_encoding: str) -> tuple[Sequence[bytes], str | None]:
    """Compress a response body; return its parts and the content coding, None if it is left uncompressed."""
    size = sum(map(len, parts))
    coding = _negotiate_coding(accept_encoding) if size >= _MIN_COMPRESSED_BYTES else None
    if coding is None:
        return parts, None
    body = b"".join(parts)
    encode = _zstd if coding == "zstd" else _gzip
    return (await asyncio.to_thread(encode, body) if size >= _MIN_THREADED_BYTES else encode(body),), coding


def _negotiate_coding(accept_encoding: str) -> str | None:
    """Return the content coding to use: zstd if the client accepts it, because it compresses better than gzip."""
    accepted = set()
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            accepted.add(name.strip())
    return next((coding for coding in ("zstd", "gzip") if coding in accepted), None)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    compressed: bytes = isal_zlib.compress(body, 1, _GZIP_WBITS)
    return compressed
