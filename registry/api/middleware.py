"""What every request passes: its id, the token, the /api/v1 twin, errors to answers, counting."""

import asyncio
import hmac
import itertools
import secrets
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api.error_responses import error_response
from registry.config.types import Secret
from registry.errors import NotReady, RegistryError, Unauthorized
from registry.telemetry.logs import get_logger
from registry.telemetry.metrics import Metrics

log = get_logger(__name__)

_VERSION_PREFIX = "/api/v1"
_PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
_MAX_REQUEST_ID_BYTES = 128


class RegistryMiddleware:
    """Pure ASGI around the routes.

    With a token every path but `/`, `/health` and `/ready` wants `Authorization: Bearer`. This is the one place that
    decides who may do what.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: Secret | None) -> None:
        self._app = app
        self._metrics = metrics
        self._token = None if token is None else token.reveal().encode()
        self._request_id_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"Only HTTP requests are supported, not {scope['type']}")
        began = time.perf_counter()
        path: str = scope["path"]
        if path.startswith(_VERSION_PREFIX) and (
            len(path) == len(_VERSION_PREFIX) or path[len(_VERSION_PREFIX)] == "/"
        ):
            path = scope["path"] = path[len(_VERSION_PREFIX) :] or "/"
        # With an app in the scope the router raises what it refuses, so that it is answered like everything else.
        scope["app"] = self
        request_id = scope["request_id"] = self._request_id(scope)
        status, took = 0, 0.0

        async def answer(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status = message["status"]
                # A stream is answered once it begins, however long it lasts.
                took = time.perf_counter() - began
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            self._authenticate(scope, path)
            await self._app(scope, receive, answer)
        except asyncio.CancelledError:
            # The server ends what takes too long while it goes down; who still waits is told to go elsewhere.
            if status:
                raise
            await _send_error(NotReady("This replica is shutting down; try another replica"), request_id, answer)
        except Exception as error:
            self._log_unexpected(error, scope, request_id)
            if status:
                raise
            await _send_error(error, request_id, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            # A method of the caller's own making must not become a series.
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            self._metrics.count_response(method, route, status or 499, took or time.perf_counter() - began)

    def _authenticate(self, scope: Scope, path: str) -> None:
        if self._token is None or path in _PUBLIC_PATHS:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, token = given.partition(b" ")
        if not hmac.compare_digest(token.strip(), self._token) or kind.lower() != b"bearer":
            raise Unauthorized("This registry requires a token; send it as Authorization: Bearer <token>")

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and 0 < len(value) <= _MAX_REQUEST_ID_BYTES and value.isascii():
                given: str = value.decode()
                if given.isprintable():
                    return given
        return f"{self._request_id_prefix}-{next(self._request_numbers):x}"

    def _log_unexpected(self, error: Exception, scope: Scope, request_id: str) -> None:
        if not isinstance(error, RegistryError | HTTPException):
            log.error(
                "request_failed",
                path=scope["path"],
                method=scope["method"],
                request_id=request_id,
                exc_info=error,
            )


async def _send_error(error: Exception, request_id: str, send: Send) -> None:
    status, headers, body = error_response(error, request_id)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
