"""POST /heartbeat and its tool, served as plain ASGI: the busiest call there is, by far.

A registration in flat form comes to the same path, and goes on to the room of those who speak it.
"""

from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.request.body import parse_object, read_body
from registry.compat.mcpmesh.heartbeat import HeartbeatRoutes
from registry.compat.mcpmesh.registration import MARKER_FIELDS, is_mcpmesh_registration
from registry.errors import Detail, UnprocessableRequest
from registry.model.agent import ABSENT
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.heartbeat import HeartbeatService

_PATHS = ("/heartbeat", "/mcp/tools/heartbeat")
_MAX_LOAD = 1e9
_INVALID_LOAD = f"expected a number from 0 to {_MAX_LOAD:.0f}"


class HeartbeatRequest(msgspec.Struct):
    """A heartbeat, and what is new of the agent."""

    agent_id: str
    metadata: (
        Annotated[dict[str, Any], Meta(title="endpoint, tools or other keys that are new of the agent")] | None
    ) = None
    dependencies_version: Annotated[str, Meta(title="That of the last answer: only what differs is told")] | None = None
    load: Annotated[float, Meta(ge=0, le=_MAX_LOAD, title="How busy the agent is, for least_loaded")] | None = None


HEARTBEAT_SCHEMA: dict[str, Any] = msgspec.json.schema(HeartbeatRequest)["$defs"]["HeartbeatRequest"]


class _ReceivedHeartbeat(HeartbeatRequest):
    """With the marks of the flat form, of which it only matters that they are there."""

    name: msgspec.Raw = ABSENT
    agent_type: msgspec.Raw = ABSENT
    http_host: msgspec.Raw = ABSENT
    http_port: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT


_decode = msgspec.json.Decoder(_ReceivedHeartbeat).decode
_read_marks = attrgetter(*MARKER_FIELDS)


class HeartbeatEndpoint:
    """Serves one heartbeat a request."""

    def __init__(self, heartbeats: HeartbeatService, registration_format: HeartbeatRoutes) -> None:
        self._heartbeats = heartbeats
        self._registration_format = registration_format
        self.routes = [Route(path, self, methods=["POST"]) for path in _PATHS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one heartbeat."""
        body = await self.heartbeat(await read_body(scope, receive))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def heartbeat(self, body: bytes) -> bytes:
        """Take one heartbeat, or a registration in flat form, as JSON, and return what to answer."""
        form = _parse_heartbeat(body)
        if form is None:
            return await self._registration_format.register(body)
        at, wired = await self._heartbeats.heartbeat(
            form.agent_id, metadata=form.metadata, load=form.load, client_digest=form.dependencies_version
        )
        return b'{"status":"success","timestamp":"%s","message":"Heartbeat recorded"%s}' % (rfc3339(at).encode(), wired)


def _parse_heartbeat(body: bytes) -> HeartbeatRequest | None:
    """Read a heartbeat; None for a registration in flat form.

    What is wrong with one is found by the slower reader, which says it better.
    """
    try:
        form = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    else:
        if any(mark is not ABSENT for mark in _read_marks(form)):
            return None
        if form.agent_id and form.agent_id.isascii():
            return _extract_load(form, body)
    document = parse_object(body)
    return None if is_mcpmesh_registration(document) else _validate(document)


def _validate(document: dict[str, Any]) -> HeartbeatRequest:
    """Return a heartbeat whose every field is right. Raises UnprocessableRequest naming those that are not."""
    given, load, seen = (document.get(name) for name in ("agent_id", "load", "dependencies_version"))
    problems = []
    agent_id = given if isinstance(given, str) else ""
    if not agent_id:
        problems.append(Detail("agent_id", "expected the id of a registered agent, a string"))
    if not isinstance(document.get("metadata"), dict | None):
        problems.append(Detail("metadata", "expected an object"))
    if not isinstance(seen, str | None):
        problems.append(Detail("dependencies_version", "expected the one of the last answer, a string"))
    if load is not None and not _is_load(load):
        problems.append(Detail("load", _INVALID_LOAD))
    if problems:
        raise UnprocessableRequest.of(problems)
    return HeartbeatRequest(agent_id, document.get("metadata"), seen, load)


def _extract_load(form: HeartbeatRequest, body: bytes) -> HeartbeatRequest:
    """Check what is to be kept as strictly as a registration is; take the load out of it, which is no change."""
    if not form.metadata:
        return form
    parse_object(body)
    load = form.metadata.pop("load", None)
    if load is not None and not _is_load(load):
        raise UnprocessableRequest(f"metadata.load: {_INVALID_LOAD}", [Detail("metadata.load", _INVALID_LOAD)])
    if form.load is None:
        form.load = load
    return form


def _is_load(value: object) -> bool:
    # By exact type: to Python, True is an int.
    return type(value) in (int, float) and 0 <= value <= _MAX_LOAD  # type: ignore[operator]
