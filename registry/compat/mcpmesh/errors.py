"""Error responses for mcp-mesh clients, which read the message from the field `error`."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response

from registry.api.response.json_responses import json_response, timestamp
from registry.errors import MalformedRequest

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def error_body(message: str) -> bytes:
    """Return the JSON body of an error response in the mcp-mesh format."""
    return orjson.dumps({"error": message, "timestamp": timestamp()})


def with_mcpmesh_errors(handler: Handler) -> Handler:
    """Return a handler of an HTTP route whose response to a malformed request is 400 in the mcp-mesh format."""

    @wraps(handler)
    async def respond(request: Request) -> Response:
        try:
            return await handler(request)
        except MalformedRequest as error:
            return json_response(error_body(str(error)), status=400)

    return respond
