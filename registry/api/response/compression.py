"""Large answers, packed the way the client takes them."""

import asyncio
from collections.abc import Sequence

import zstandard
from isal import isal_zlib

# Smaller bodies are not worth the time; larger ones are packed beside the event loop.
_MIN_COMPRESSED_BYTES = 16 * 1024
_MIN_THREADED_BYTES = 256 * 1024
# As zlib has it: a gzip stream with the largest window.
_GZIP_WBITS = 31


async def compress(parts: Sequence[bytes], accept_encoding: str) -> tuple[Sequence[bytes], str | None]:
    """Return the parts of a body and its content coding, None where they go as they are."""
    size = sum(map(len, parts))
    coding = _negotiate_coding(accept_encoding) if size >= _MIN_COMPRESSED_BYTES else None
    if coding is None:
        return parts, None
    body = b"".join(parts)
    pack = _zstd if coding == "zstd" else _gzip
    return (await asyncio.to_thread(pack, body) if size >= _MIN_THREADED_BYTES else pack(body),), coding


def _negotiate_coding(accept_encoding: str) -> str | None:
    """Return the coding to use: zstd where it is taken, as it packs better than gzip."""
    taken = set()
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            taken.add(name.strip())
    return next((coding for coding in ("zstd", "gzip") if coding in taken), None)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    packed: bytes = isal_zlib.compress(body, 1, _GZIP_WBITS)
    return packed
