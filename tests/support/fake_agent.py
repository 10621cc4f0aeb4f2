"""Agent endpoint that sends configured responses and records its requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OK_RESPONSE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'
SSE_RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


RequestHandler = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FakeAgent:
    """Where it listens, what it was asked, and how often the other side hung up."""

    port: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    disconnects: int = 0
    host: str = "127.0.0.1"

    def registration(self, agent_id: str = "stand-in-1", **fields: Any) -> dict[str, Any]:
        """Return a registration in flat form that announces it."""
        return {
            "agent_id": agent_id,
            "name": agent_id.rsplit("-", 1)[0],
            "agent_type": "mcp_agent",
            "http_host": self.host,
            "http_port": self.port,
            "tools": [],
        } | fields


async def reply_ok(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Answer with a small object."""
    writer.write(OK_RESPONSE)


@contextlib.asynccontextmanager
async def fake_agent(
    reply: RequestHandler = reply_ok, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[FakeAgent]:
    """Provide one whose requests are answered by `reply`; a connection stays until the other side goes."""
    stand_in = FakeAgent(host=host)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _read_request(reader)
                stand_in.requests.append(asked)
                await reply(asked, writer)
                await writer.drain()
        stand_in.disconnects += 1
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    stand_in.port = server.sockets[0].getsockname()[1]
    try:
        yield stand_in
    finally:
        server.close()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    method, path, _ = first.split(" ")
    return ReceivedRequest(method, path, headers, body)
