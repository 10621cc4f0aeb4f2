"""HTTP server that sends fixed responses in order."""

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


def http_response(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a complete HTTP response; a body that is not bytes is encoded as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} canned", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


class CannedServer:
    """Listens on a loopback address and sends `responses` in order, then repeats the last one.

    Without responses it sends nothing. `requests` are the heads of received requests as text, `bodies` their bodies.
    """

    def __init__(self, *responses: bytes, host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.port = port
        self._host = host
        self._responses = list(responses)
        self._server: asyncio.Server | None = None
        self._open_writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The URL of this server."""
        return f"http://{self._host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open_writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open_writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [
                    line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")
                ]
                self.bodies.append(await reader.readexactly(int(lengths[0]) if lengths else 0))
                self.requests.append(head)
                if self._responses:
                    writer.write(self._responses.pop(0) if len(self._responses) > 1 else self._responses[0])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open_writers.discard(writer)
            writer.transport.abort()


def json_response(**fields: Any) -> bytes:
    """Return a response with status 200 and these fields."""
    return http_response(200, fields)
