"""Error responses for mcp-mesh clients, which read the message from the field `error`."""

import orjson
from starlette.types import Send

from registry.api.response.json_responses import Headers, send_json, timestamp


def error_body(message: str) -> bytes:
    """Return the JSON body of an error response in the mcp-mesh format."""
    return orjson.dumps({"error": message, "timestamp": timestamp()})


async def send_error(send: Send, status: int, message: str, headers: Headers = ()) -> None:
    """Send an error response in the mcp-mesh format."""
    await send_json(send, status, error_body(message), headers)
