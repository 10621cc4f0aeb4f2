"""The HTTP server: uvicorn, started and stopped by us."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.api.watch import ABORT
from registry.errors import StartupError

# Longer than any balancer keeps an idle connection, so that it is the balancer that closes it.
_KEEP_ALIVE = 75
# What a request in flight may still take once the process was told to stop.
_GRACE = 3


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also tells the application how to drop a connection whose client takes nothing."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: who runs it decides when it stops, and with which status it exits."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """One listening socket and the application behind it. The socket is bound, and its port known, from the start."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            raise StartupError(
                f"Cannot listen on {host}:{port}: {error.strerror}; stop what listens there, or choose another port "
                "with --port"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        self.url = f"http://[{shown}]:{self.port}" if ":" in shown else f"http://{shown}:{self.port}"
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> "asyncio.Task[None]":
        """Begin to accept; the task ends when the server has stopped."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self._task

    async def stop(self) -> None:
        """Accept nothing more, finish what is in flight, and return when that is done."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
