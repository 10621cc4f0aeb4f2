"""POST /heartbeat, also as an MCP tool: a plain ASGI endpoint, because it is by far the most frequent call."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import orjson
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.request.body import parse_object, read_body
from registry.api.request.heartbeat_body import HeartbeatRequest, extract_load, find_near_fields, validate_heartbeat
from registry.api.request.registration_body import warning_fields
from registry.model.agent import ABSENT
from registry.model.encoding.agent_json import rfc3339
from registry.service.liveness.heartbeat_service import HeartbeatService

_PATHS = ("/heartbeat", "/mcp/tools/heartbeat")


class HeartbeatFormat(Protocol):
    """Interface of a heartbeat format of another product that POST /heartbeat also accepts."""

    @property
    def marker_fields(self) -> Sequence[str]:
        """The names of fields that only this format has; a body with any such field is in this format."""

    async def handle(self, document: dict[str, Any], scope: Scope) -> bytes:
        """Process a heartbeat in this format and return the JSON of the response."""


class HeartbeatEndpoint:
    """Serves one heartbeat per request, in the native format or one of `formats`."""

    def __init__(self, heartbeats: HeartbeatService, formats: Sequence[HeartbeatFormat] = ()) -> None:
        self._heartbeats = heartbeats
        self._formats = formats
        self._marker_fields = tuple({field: None for each in formats for field in each.marker_fields})
        # Decoding the marker fields as raw JSON shows that one is present without a second parse. An unknown field ends
        # the quick decoding, because it may be a misspelt one.
        markers = [(field, msgspec.Raw, ABSENT) for field in self._marker_fields]
        struct = msgspec.defstruct("ReceivedHeartbeat", markers, bases=(HeartbeatRequest,), forbid_unknown_fields=True)
        self._decode: msgspec.json.Decoder[HeartbeatRequest] = msgspec.json.Decoder(struct)
        # attrgetter returns a tuple for two names or more.
        self._read_fields = attrgetter("agent_id", "load", *self._marker_fields)
        self.routes = [Route(path, self, methods=["POST"]) for path in _PATHS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one heartbeat request."""
        body = await self.heartbeat(await read_body(scope, receive), scope) + b"\n"
        # Not through send_json: two more coroutines for each heartbeat are measurable.
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def heartbeat(self, body: bytes, scope: Scope) -> bytes:
        """Process a heartbeat in any supported format, and return the JSON of the response."""
        request, warnings = self._decode_native(body), b""
        if request is None:
            document = parse_object(body)
            for each in self._formats:
                if any(field in document for field in each.marker_fields):
                    return await each.handle(document, scope)
            request = extract_load(validate_heartbeat(document), body)
            if near := find_near_fields(document):
                warnings = b',"warnings":%s' % orjson.dumps([warning_fields(each) for each in near])
        at, dependencies = await self._heartbeats.heartbeat(
            request.agent_id, metadata=request.metadata, load=request.load, client_digest=request.dependencies_version
        )
        return b'{"status":"success","timestamp":"%s","message":"Heartbeat recorded"%s%s}' % (
            rfc3339(at).encode(),
            dependencies,
            warnings,
        )

    def _decode_native(self, body: bytes) -> HeartbeatRequest | None:
        """Decode a valid native heartbeat quickly; None for others: `validate_heartbeat` finds their every error."""
        try:
            request = self._decode.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        if (
            any(marker is not ABSENT for marker in self._read_fields(request)[2:])
            or not request.agent_id
            or not request.agent_id.isascii()
        ):
            return None
        return extract_load(request, body)
