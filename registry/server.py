"""The HTTP server: uvicorn, started and stopped by us."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.api.response.connection import CONNECTION_EXTENSION
from registry.errors import StartupError

# Longer than any balancer keeps an idle connection, so that it is the balancer that closes it.
_KEEP_ALIVE_TIMEOUT_S = 75
# How a client begins that takes this for HTTPS.
_TLS_RECORD_PREFIX = b"\x16\x03"
# What a request in flight may still take once the process was told to stop.
_SHUTDOWN_GRACE_S = 3


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also shows streams the connection under them."""

    _received_request = False

    def data_received(self, data: bytes) -> None:
        """Take what arrived; who begins with TLS tries plain HTTP next, and is nothing to warn of."""
        if not self._received_request and data.startswith(_TLS_RECORD_PREFIX):
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._received_request = True
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_EXTENSION: self}  # type: ignore[dict-item]

    def writable(self) -> bool:
        """Tell whether a message that is sent now is written without waiting for the client."""
        return not self.flow.write_paused and not self.transport.is_closing()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abort()


class _UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers: who runs it decides when it stops, and with which status it exits."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener(contextlib.AbstractContextManager["Listener"]):
    """A listening socket, bound when it is made; error messages name `setting_name` as the option to change.

    Raises StartupError when the address cannot be had. As a context manager it closes the socket.
    """

    def __init__(self, host: str, port: int, setting_name: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        everywhere = host == "::" and socket.has_dualstack_ipv6()
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=everywhere)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                advice = f"stop what listens there, or choose another port with {setting_name}"
            else:
                advice = "choose an address of this machine with --host"
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise StartupError(f"Cannot listen on {host}:{port}: {reason}; {advice}") from error
        self.port: int = self._socket.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        self.url = f"http://[{shown}]:{self.port}" if ":" in shown else f"http://{shown}:{self.port}"
        self._server: _UvicornServer | None = None
        self._task: asyncio.Task[None] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def start(self, app: ASGIApp) -> "asyncio.Task[None]":
        """Begin to accept for an application; the task ends when the server has stopped."""
        self._server = _UvicornServer(
            uvicorn.Config(
                app,
                http=_HttpProtocol,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_TIMEOUT_S,
                timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
            )
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self._task

    def disable_keep_alive(self) -> None:
        """Let every answer from now on be the last of its connection, so that clients come back somewhere else."""
        if self._server is not None:
            closing = (b"connection", b"close")
            # The first holds until uvicorn's clock ticks, and is then made anew from the second.
            self._server.server_state.default_headers.append(closing)
            self._server.config.encoded_headers.append(closing)

    async def stop(self) -> None:
        """Accept nothing more, finish what is in flight, and return when that is done."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
