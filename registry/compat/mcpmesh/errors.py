"""How mesh clients are refused: the sentence stands under `error`, where they look for it."""

from collections.abc import Sequence

import orjson
from starlette.types import Send

from registry.api.response.responses import timestamp

Headers = Sequence[tuple[bytes, bytes]]


def refusal(sentence: str) -> bytes:
    """Return the JSON of a refusal."""
    return orjson.dumps({"error": sentence, "timestamp": timestamp()})


async def refuse(send: Send, status: int, sentence: str, headers: Headers = ()) -> None:
    """Send a refusal."""
    body = refusal(sentence)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
