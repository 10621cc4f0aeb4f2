"""The middleware of every request: path, request id, checks, authentication, error responses, headers, metrics."""

import asyncio
import hmac
import itertools
import secrets
import time

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.api.error_responses import JSONRPC_INVALID_REQUEST, http_status, jsonrpc_error, send_error
from registry.api.request_checks import VERSION_PREFIX, Headers, RequestChecks, route_path
from registry.api.response.cache_headers import NO_CACHE, varying_cache_headers
from registry.api.response.json_responses import send_json
from registry.api.response.json_rewrite import choose_sender
from registry.api.response.security_headers import SECURITY_HEADERS, security_headers, send_preflight_response
from registry.config.value_types import Secret
from registry.errors import NotReady, OriginRefused, RegistryError, Unauthorized
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

    def __init__(self, app: ASGIApp, metrics: Metrics, token: Secret | None, checks: RequestChecks) -> None:
        self._app = app
        self._metrics = metrics
        self._token = None if token is None else token.reveal().encode()
        self._checks = checks
        # The request headers that every response depends on.
        names = [b"authorization"] * (token is not None) + [b"origin"] * checks.allows_pages
        self._vary = b", ".join(names) or None
        self._request_id_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request: check, authenticate, route, and turn exceptions into error responses."""
        if scope["type"] != "http":
            raise RuntimeError(f"Only HTTP requests are supported, not {scope['type']}")
        started_at = time.perf_counter()
        if scope["path"][-1:] == "/" or b"%" in scope["raw_path"] or scope["path"].startswith(VERSION_PREFIX):
            scope["path"] = route_path(scope["raw_path"])
        # With an app in the scope, Starlette raises its 404 and 405, so that they get an error body of this registry.
        scope["app"] = self
        headers = dict(scope["headers"])
        request_id = scope["request_id"] = self._request_id(headers)
        fixed_headers = SECURITY_HEADERS
        status, duration, accepted = 0, 0.0, False

        async def send_response(message: Message) -> None:
            nonlocal status, duration
            if message["type"] == "http.response.start":
                status = message["status"]
                # The duration is the time to the headers: a stream lasts as long as its client.
                duration = time.perf_counter() - started_at
                sent = message["headers"]
                cache_headers = (
                    (NO_CACHE,)
                    if self._vary is None
                    else varying_cache_headers(sent, self._vary, token_accepted=accepted and self._token is not None)
                )
                sent += ((b"x-request-id", request_id.encode()), *cache_headers, *fixed_headers)
            await send(message)

        respond: Send = send_response
        try:
            if b"origin" in headers or b"sec-fetch-site" in headers:
                page_origin = self._checks.check_origin(scope, headers)
                fixed_headers = security_headers(page_origin)
                if page_origin is not None and scope["method"] == "OPTIONS":
                    await send_preflight_response(respond, headers)
                    return
            accepted = scope["authorized"] = self._token is None or self._is_authorized(scope["path"], headers)
            self._checks.check_request(scope, headers)
            if b"pretty" in scope["query_string"]:
                respond = choose_sender(scope, send_response)
            await self._app(scope, receive, respond)
        except (asyncio.CancelledError, Exception) as error:
            self._log_unexpected(error, scope, request_id)
            if status:
                raise
            await _send_error(respond, error, scope)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            # An arbitrary method sent by a client must not create a new metric series.
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            self._metrics.count_response(method, route, status or 499, duration or time.perf_counter() - started_at)

    def _is_authorized(self, path: str, headers: Headers) -> bool:
        """Return whether the caller may see everything. Raises Unauthorized if the path requires a token."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if hmac.compare_digest(token.strip(), self._token or b"") and scheme.lower() == b"bearer":
            return True
        if path not in _PUBLIC_PATHS:
            raise Unauthorized("This registry requires a token; send it as Authorization: Bearer <token>")
        return False

    def _request_id(self, headers: Headers) -> str:
        if b"x-request-id" in headers:
            value = headers[b"x-request-id"]
            if 0 < len(value) <= _MAX_REQUEST_ID_BYTES and value.isascii():
                request_id = value.decode()
                if request_id.isprintable():
                    return request_id
        return f"{self._request_id_prefix}-{next(self._request_numbers):x}"

    def _log_unexpected(self, error: Exception | asyncio.CancelledError, scope: Scope, request_id: str) -> None:
        if not isinstance(error, RegistryError | HTTPException | asyncio.CancelledError):
            log.error(
                "request_failed",
                path=scope["path"],
                method=scope["method"],
                request_id=request_id,
                exc_info=error,
            )


async def _send_error(send: Send, error: Exception | asyncio.CancelledError, scope: Scope) -> None:
    if not isinstance(error, Exception):
        # During shutdown the server cancels requests that take too long; their clients should try another replica.
        error = NotReady("This replica is shutting down; try another replica")
    if isinstance(error, OriginRefused) and scope["path"] == "/mcp":
        # MCP requires a JSON-RPC error without an id: the body with the id is not read.
        await send_json(send, http_status(error), orjson.dumps(jsonrpc_error(error, JSONRPC_INVALID_REQUEST)))
    else:
        await send_error(send, error, scope["request_id"])
