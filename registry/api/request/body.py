"""Reads request bodies up to a size limit, and decodes JSON bodies."""

from collections.abc import Iterable
from typing import Any, Final

from starlette.types import Receive, Scope

from registry.api.request.query_params import parse_query
from registry.errors import Detail, MalformedRequest, RequestTooLarge, UnsupportedMediaType
from registry.model.validation.json_body import decode_json_body

MAX_BODY_BYTES = 1024 * 1024
JSON_BY_DEFAULT_PATHS: Final[frozenset[str]] = frozenset()
"""The paths to which published clients send a body without Content-Type; none does."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the whole body of a request without query parameters.

    Raises RequestTooLarge above 1 MiB, UnsupportedMediaType for another content type or a compressed body, and
    MalformedRequest for any query parameter.
    """
    if scope["query_string"]:
        parse_query(scope["query_string"], ())
    _check_headers(scope["headers"])
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MalformedRequest("The connection was closed before the body was complete")
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            parts.append(part)
        body = b"".join(parts)
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


async def read_object(scope: Scope, receive: Receive) -> dict[str, Any]:
    """Read the body of a request as a JSON object."""
    return parse_object(await read_body(scope, receive))


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body as a JSON object. Raises MalformedRequest for any other body."""
    document = decode_json_body(body)
    if not isinstance(document, dict):
        raise MalformedRequest("The body must be a JSON object", [Detail("body", "expected an object")])
    return document


def _check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
            if media_type != b"application/json" and not media_type.endswith(b"+json"):
                raise UnsupportedMediaType("Send the body as JSON, with the header Content-Type: application/json")
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMediaType("Send the body uncompressed, without Content-Encoding")
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise _too_large()


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The body exceeds the limit of {MAX_BODY_BYTES} bytes; send fewer items per request")
