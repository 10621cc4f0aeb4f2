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
    """The address of an agent, its received requests, and how often a client disconnected."""

    port: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    disconnects: int = 0
    host: str = "127.0.0.1"

    def registration(self, agent_id: str = "fake-agent-1", **fields: Any) -> dict[str, Any]:
        """Return a registration of this agent in the mcp-mesh format."""
        return {
            "agent_id": agent_id,
            "name": agent_id.rsplit("-", 1)[0],
            "agent_type": "mcp_agent",
            "http_host": self.host,
            "http_port": self.port,
            "tools": [],
        } | fields


async def reply_ok(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Send a small JSON object."""
    writer.write(OK_RESPONSE)


@contextlib.asynccontextmanager
async def fake_agent(
    reply: RequestHandler = reply_ok, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[FakeAgent]:
    """Provide an agent that handles requests with `reply`; a connection stays open until the client closes it."""
    agent = FakeAgent(host=host)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await _read_request(reader)
                agent.requests.append(request)
                await reply(request, writer)
                await writer.drain()
        agent.disconnects += 1
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    agent.port = server.sockets[0].getsockname()[1]
    try:
        yield agent
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
