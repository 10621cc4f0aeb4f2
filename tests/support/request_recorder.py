"""Proxy before a replica that records the requests of clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from tests.support.fake_agent import ReceivedRequest, fake_agent

_CHUNK_BYTES = 65_536
# Headers of one connection, which the proxy replaces.
_CONNECTION_HEADERS = ("connection", "content-length", "transfer-encoding")


@contextlib.asynccontextmanager
async def request_recorder(replica_url: str) -> AsyncIterator[tuple[str, Sequence[ReceivedRequest]]]:
    """Provide the URL of a proxy, and the list of the requests that it has received.

    Each request is forwarded with the headers of its client over a connection of its own.
    """
    replica = urlsplit(replica_url)

    async def forward(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        reader, upstream = await asyncio.open_connection(replica.hostname, replica.port)
        try:
            upstream.write(_request_bytes(request))
            while chunk := await reader.read(_CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()
        finally:
            upstream.close()

    async with fake_agent(forward) as recorder:
        yield f"http://{recorder.host}:{recorder.port}", recorder.requests


def _request_bytes(request: ReceivedRequest) -> bytes:
    headers = {name: value for name, value in request.headers.items() if name not in _CONNECTION_HEADERS}
    headers |= {"connection": "close"}
    if "content-length" in request.headers or request.body:
        headers["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body
