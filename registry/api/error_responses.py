"""Builds error responses, with the only mapping from error classes to HTTP statuses."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.types import Send

from registry.api.response.json_responses import Headers, send_json
from registry.errors import (
    AgentUnreachable,
    Forbidden,
    IdInUse,
    InvalidRequest,
    MalformedForeignRequest,
    MalformedRequest,
    NoProvider,
    NotReady,
    RegistryError,
    RequestTooLarge,
    StaleVersion,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    UnknownAgent,
    UnknownHost,
    UnprocessableRequest,
    UnsupportedMediaType,
    VersionTooOld,
)

_STATUS: Mapping[type[RegistryError], int] = {
    MalformedRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NoProvider: 404,
    UnknownAgent: 404,
    IdInUse: 409,
    StaleVersion: 409,
    VersionTooOld: 410,
    RequestTooLarge: 413,
    UnsupportedMediaType: 415,
    UnknownHost: 421,
    UnprocessableRequest: 422,
    TooManyRequests: 429,
    AgentUnreachable: 502,
    NotReady: 503,
    StoreUnavailable: 503,
}
JSONRPC_INVALID_REQUEST = -32600
"""JSON-RPC's code for a message that is no valid request."""
_HTTP_ERROR_CODES = {404: "not_found", 405: "method_not_allowed"}


def http_status(error: RegistryError) -> int:
    """Return the HTTP status of an error."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def error_body(error: RegistryError) -> dict[str, Any]:
    """Return the JSON body of an error, without the request id."""
    body: dict[str, Any] = {"status": "error", "error": error.code, "message": str(error), "details": []}
    if isinstance(error, InvalidRequest):
        body["details"] = [{"field": detail.field, "problem": detail.problem} for detail in error.details]
    elif isinstance(error, VersionTooOld):
        body["resource_version"] = str(error.current)
    elif isinstance(error, StaleVersion):
        body["resource_version"] = None if error.current is None else str(error.current)
    elif isinstance(error, NoProvider):
        body["reason"] = error.reason
    elif isinstance(error, StoreUnavailable):
        body["reason"] = error.reason
        body["outcome"] = error.outcome
    return body


def jsonrpc_error(error: RegistryError, code: int) -> dict[str, Any]:
    """Return the JSON-RPC message for an error, with a code of JSON-RPC and without the `id` of a request."""
    return {"jsonrpc": "2.0", "error": {"code": code, "message": str(error), "data": error_body(error)}}


def error_response(error: Exception, request_id: str) -> tuple[int, Headers, bytes]:
    """Return the status, extra headers and JSON body for an exception; an unexpected one is a 500 without its text."""
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, MalformedForeignRequest):
        return http_status(error), headers, error.body
    if isinstance(error, RegistryError):
        status, body = http_status(error), error_body(error)
    elif isinstance(error, HTTPException):
        status = error.status_code
        code = _HTTP_ERROR_CODES.get(status, "http_error")
        body = {"status": "error", "error": code, "message": error.detail, "details": []}
        headers += [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    else:
        status = 500
        message = "Internal error; the stack trace is in the registry's log under this request_id"
        body = {"status": "error", "error": "internal_error", "message": message, "details": []}
    if isinstance(error, TooManyRequests):
        headers.append((b"retry-after", b"%d" % error.retry_after))
    elif status == 401:  # noqa: PLR2004
        headers.append((b"www-authenticate", b"Bearer"))
    elif status == 503:  # noqa: PLR2004
        headers.append((b"retry-after", b"1"))
    return status, headers, orjson.dumps(body | {"request_id": request_id})


async def send_error(send: Send, error: Exception, request_id: str) -> None:
    """Send the response for an exception over ASGI."""
    status, headers, body = error_response(error, request_id)
    await send_json(send, status, body, headers)
