"""`Listener`: a listening socket and the uvicorn server that serves an application on it."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import StartupError
from registry.http_server.connection_table import ConnectionLimits, ConnectionTable
from registry.http_server.protocol import HttpProtocol

# Time for requests in flight to finish after the stop.
_SHUTDOWN_GRACE_S = 3


class _UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the caller stops it and sets the exit status."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener(contextlib.AbstractContextManager["Listener"]):
    """A listening socket, bound at construction; error messages name `setting_name` as the option to change.

    Its connections have limits of their own; `count_refused` receives the reason of each connection that is refused.
    Raises StartupError if it cannot listen on the address. As a context manager it closes the socket.
    """

    def __init__(
        self,
        host: str,
        port: int,
        setting_name: str,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - it is immutable
        count_refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        dual_stack = host == "::" and socket.has_dualstack_ipv6()
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dual_stack)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                advice = f"stop the process that uses the port, or choose another port with {setting_name}"
            else:
                advice = "choose an address of this machine with --host"
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise StartupError(f"Cannot listen on {host}:{port}: {reason}; {advice}") from error
        self.port: int = self._socket.getsockname()[1]
        url_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        self.url = f"http://[{url_host}]:{self.port}" if ":" in url_host else f"http://{url_host}:{self.port}"
        self.connections = ConnectionTable(limits, count_refused)
        self._app: ASGIApp | None = None
        self._server: _UvicornServer | None = None
        self._task: asyncio.Task[None] | None = None

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def start(self, app: ASGIApp) -> "asyncio.Task[None]":
        """Start serving an application; the returned task ends when the server has stopped."""
        self._app = app
        self._server = _UvicornServer(
            uvicorn.Config(
                self._call_app,
                interface="asgi3",
                http=partial(HttpProtocol, self.connections),  # type: ignore[arg-type]
                lifespan="off",
                ws="none",
                proxy_headers=False,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
            )
        )
        self.connections.start()
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self._task

    def replace_app(self, app: ASGIApp) -> None:
        """Serve another application from the next request on, on open connections, too."""
        self._app = app

    def _call_app(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the call of the current application; awaiting it here would slow down each request."""
        if self._app is None:
            raise RuntimeError("start() was not called")
        return self._app(scope, receive, send)

    def disable_keep_alive(self) -> None:
        """Close each connection after its next response, so that clients reconnect to another replica."""
        if self._server is not None:
            closing = (b"connection", b"close")
            # uvicorn rebuilds the first list from the second at each tick of its clock.
            self._server.server_state.default_headers.append(closing)
            self._server.config.encoded_headers.append(closing)

    async def stop(self) -> None:
        """Stop accepting requests, and return when all requests in flight are finished."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self.connections.stop()
            # The event loop closes aborted connections in its next iteration.
            await asyncio.sleep(0)
