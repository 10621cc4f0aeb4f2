"""Calls a replica as an agent would: just enough HTTP for that, so that no client has to be installed."""

import asyncio
import contextlib
from asyncio import LimitOverrunError, StreamReader, StreamWriter
from typing import Any
from urllib.parse import urlsplit

import orjson

_PATIENCE = 10.0
_OK = 200


class CallFailed(Exception):
    """The call was not answered by 200 and JSON; the message says what came instead."""


class Caller:
    """One kept connection to the replica at `url`, for one call at a time; after a failure the next opens another.

    `token` goes with every call. The URL may be https and may have a path before the API's own.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._address = urlsplit(self.url)
        self._authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
        self._streams: tuple[StreamReader, StreamWriter] | None = None

    async def call(self, method: str, path: str, document: object = None) -> Any:
        """Send a JSON document, if there is one, and return the one that is answered. Raises CallFailed."""
        try:
            async with asyncio.timeout(_PATIENCE):
                status, body = await self._exchange(method, path, document)
            if status == _OK:
                return orjson.loads(body)
            problem = f"{status} {body.decode(errors='replace')}"
        except TimeoutError:
            problem = f"no answer within {_PATIENCE:.0f} s"
        except (OSError, EOFError, LimitOverrunError, ValueError) as error:
            problem = str(error)
        raise CallFailed(f"{method} {self.url}{path}: {problem}")

    def close(self) -> None:
        """Close the connection; the next call would open another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        secure = self._address.scheme == "https"
        port = self._address.port or (443 if secure else 80)
        return await asyncio.open_connection(self._address.hostname, port, ssl=secure or None)

    async def _exchange(self, method: str, path: str, document: object) -> tuple[int, bytes]:
        """Write the request, read the answer; keep the connection only if both went well to the end."""
        streams, self._streams = self._streams, None
        reader, writer = streams or await self._connect()
        with contextlib.ExitStack() as undo:
            undo.callback(writer.close)
            body = b"" if document is None else orjson.dumps(document)
            head = f"{method} {self._address.path}{path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            head += self._authorization
            if body:
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"\r\n" + body)
            status, headers = _read_head(await reader.readuntil(b"\r\n\r\n"))
            answer = await reader.readexactly(int(headers.get(b"content-length", b"no length")))
            if headers.get(b"connection") != b"close":
                self._streams = reader, writer
                undo.pop_all()
        return status, answer


def _read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Return the status and the headers, all in lower case."""
    first, *lines = head.lower().split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return int(first[9:12]), {name: value.strip() for name, _, value in pairs}
