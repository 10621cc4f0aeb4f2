"""`Listener`: a listening socket and the uvicorn server that serves an application on it."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Iterator
from types import TracebackType

import httptools
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.api.response.client_connection import CONNECTION_EXTENSION
from registry.errors import StartupError

# Longer than load balancers keep idle connections open, so that the balancer closes them and not this server.
_KEEP_ALIVE_TIMEOUT_S = 75
# The first bytes of a TLS handshake, sent by a client that expects HTTPS.
_TLS_RECORD_PREFIX = b"\x16\x03"
# Time for requests in flight to finish after the stop.
_SHUTDOWN_GRACE_S = 3


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also ignores upgrade offers and gives streaming responses their connection.

    Java's HTTP client and `curl --http2` offer HTTP/2 with their requests. httptools stops after the head of such a
    request, so uvicorn alone would lose its body.
    """

    _received_request = False

    def data_received(self, data: bytes) -> None:
        """Receive bytes; close a connection that begins with TLS, without uvicorn's warning."""
        if not self._received_request and data.startswith(_TLS_RECORD_PREFIX):
            self.transport.close()
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._continue_without_upgrade(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError:
            self._reject_request()

    def _continue_without_upgrade(self, rest: memoryview) -> None:
        """Parse the head of a request again without its upgrade offer, and then `rest`, the bytes after this head."""
        try:
            while self._should_upgrade():
                self._parse_head_without_offer()
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as stop:
                    rest = rest[stop.args[0] :]
                else:
                    return
        except httptools.HttpParserError:
            self._reject_request()

    def _reject_request(self) -> None:
        message = "Invalid HTTP request received."
        self.logger.warning(message)
        self.send_400_response(message)

    def _should_upgrade(self) -> bool:
        """Return whether the parsed head offers an upgrade; then uvicorn does not start the request."""
        return self.parser.get_method() != b"CONNECT"

    def _parse_head_without_offer(self) -> None:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        self._received_request = True
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_EXTENSION: self}  # type: ignore[dict-item]

    def writable(self) -> bool:
        """Whether the next part of a response can be written without waiting for the client."""
        return not self.flow.write_paused and not self.transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()


class _UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the caller stops it and sets the exit status."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener(contextlib.AbstractContextManager["Listener"]):
    """A listening socket, bound at construction; error messages name `setting_name` as the option to change.

    Raises StartupError if it cannot listen on the address. As a context manager it closes the socket.
    """

    def __init__(self, host: str, port: int, setting_name: str) -> None:
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
