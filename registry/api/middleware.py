"""The middleware of every request: path, request id, authentication, error responses, cache headers, metrics."""

import asyncio
import hmac
import itertools
import secrets
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api.error_responses import send_error
from registry.api.request_checks import VERSION_PREFIX, route_path
from registry.api.response.cache_headers import NO_CACHE, private_cache_headers
from registry.api.response.json_rewrite import choose_sender
from registry.config.value_types import Secret
from registry.errors import NotReady, RegistryError, Unauthorized
from registry.telemetry.logs import get_logger
from registry.telemetry.metrics import Metrics

log = get_logger(__name__)

_PUBLIC_PATHS = frozenset({"/", "/health", "/ready"})
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
_MAX_REQUEST_ID_BYTES = 128


class RegistryMiddleware:
    """ASGI middleware around the router for every request.

    With a token, every path but `/`, `/health` and `/ready` requires `Authorization: Bearer`: the only access check.
    These three show no details without it: `authorized` in the scope is whether the caller may see everything.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: Secret | None) -> None:
        self._app = app
        self._metrics = metrics
        self._token = None if token is None else token.reveal().encode()
        self._request_id_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request: authenticate, route, and turn exceptions into error responses."""
        if scope["type"] != "http":
            raise RuntimeError(f"Only HTTP requests are supported, not {scope['type']}")
        started_at = time.perf_counter()
        if scope["path"][-1:] == "/" or b"%" in scope["raw_path"] or scope["path"].startswith(VERSION_PREFIX):
            scope["path"] = route_path(scope["raw_path"])
        # With an app in the scope, Starlette raises its 404 and 405, so that they get an error body of this registry.
        scope["app"] = self
        request_id = scope["request_id"] = self._request_id(scope)
        status, duration, accepted = 0, 0.0, False

        async def send_response(message: Message) -> None:
            nonlocal status, duration
            if message["type"] == "http.response.start":
                status = message["status"]
                # The duration is the time to the headers: a stream lasts as long as its client.
                duration = time.perf_counter() - started_at
                headers = message["headers"]
                is_open = self._token is None
                cache_headers = (NO_CACHE,) if is_open else private_cache_headers(headers, token_accepted=accepted)
                headers += ((b"x-request-id", request_id.encode()), *cache_headers)
            await send(message)

        respond: Send = send_response
        try:
            accepted = scope["authorized"] = self._is_authorized(scope)
            if b"pretty" in scope["query_string"]:
                respond = choose_sender(scope, send_response)
            await self._app(scope, receive, respond)
        except asyncio.CancelledError:
            # During shutdown the server cancels requests that take too long; their clients should try another replica.
            if status:
                raise
            await send_error(respond, NotReady("This replica is shutting down; try another replica"), request_id)
        except Exception as error:
            self._log_unexpected(error, scope, request_id)
            if status:
                raise
            await send_error(respond, error, request_id)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            # An arbitrary method sent by a client must not create a new metric series.
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            self._metrics.count_response(method, route, status or 499, duration or time.perf_counter() - started_at)

    def _is_authorized(self, scope: Scope) -> bool:
        """Return whether the caller may see everything. Raises Unauthorized if the path requires a token."""
        if self._token is None:
            return True
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = authorization.partition(b" ")
        if hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer":
            return True
        if scope["path"] not in _PUBLIC_PATHS:
            raise Unauthorized("This registry requires a token; send it as Authorization: Bearer <token>")
        return False

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and 0 < len(value) <= _MAX_REQUEST_ID_BYTES and value.isascii():
                request_id: str = value.decode()
                if request_id.isprintable():
                    return request_id
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
