"""POST /heartbeat and its tool, served as plain ASGI: the busiest call there is, by far."""

from typing import Any

import msgspec
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.body import object_in, read_body
from registry.errors import Detail, UnprocessableRequest
from registry.model.wire import rfc3339
from registry.service.liveness import Liveness

_PATHS = ("/heartbeat", "/mcp/tools/heartbeat")


class HeartbeatForm(msgspec.Struct):
    """A heartbeat. `metadata` is accepted and left alone."""

    agent_id: str
    metadata: dict[str, Any] | None = None


HEARTBEAT_SCHEMA: dict[str, Any] = msgspec.json.schema(HeartbeatForm)["$defs"]["HeartbeatForm"]

_read = msgspec.json.Decoder(HeartbeatForm).decode


class Heartbeats:
    """Serves one heartbeat a request."""

    def __init__(self, liveness: Liveness) -> None:
        self._liveness = liveness
        self.routes = [Route(path, self, methods=["POST"]) for path in _PATHS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one heartbeat."""
        form = _form(await read_body(scope, receive))
        at = await self._liveness.beat(form.agent_id)
        body = b'{"status":"success","timestamp":"%s","message":"Heartbeat recorded"}' % rfc3339(at).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _form(body: bytes) -> HeartbeatForm:
    """Read a heartbeat; what is wrong with one is found by the slower reader, which says it better."""
    try:
        form = _read(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    else:
        if form.agent_id and form.agent_id.isascii():
            return form
    document = object_in(body)
    given = document.get("agent_id")
    problems = []
    agent_id = given if isinstance(given, str) else ""
    if not agent_id:
        problems.append(Detail("agent_id", "expected the id of a registered agent, a string"))
    if not isinstance(document.get("metadata"), dict | None):
        problems.append(Detail("metadata", "expected an object"))
    if problems:
        raise UnprocessableRequest(f"{problems[0].field}: {problems[0].problem}", problems)
    return HeartbeatForm(agent_id)
