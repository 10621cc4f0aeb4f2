"""How mesh clients are refused: the sentence stands under `error`, where they look for it."""

from collections.abc import Sequence

import orjson
from starlette.types import Send

from registry.api.response.responses import timestamp

Headers = Sequence[tuple[bytes, bytes]]


def error_body(message: str) -> bytes:
    """Return the JSON of a refusal."""
    return orjson.dumps({"error": message, "timestamp": timestamp()})


async def send_error(send: Send, status: int, message: str, headers: Headers = ()) -> None:
    """Send a refusal."""
    body = error_body(message)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
