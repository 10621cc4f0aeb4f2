"""Registrations and heartbeats of mcp-mesh agents: POST /heartbeat in the mcp-mesh format, and HEAD /heartbeat/{id}."""

from typing import Any, Final

import orjson
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.request.registration_body import is_remote
from registry.api.response.json_responses import send_bytes, timestamp
from registry.cache.reflector import Reflector
from registry.compat.mcpmesh.a2a import (
    lacks_a2a_fields,
    surface_entries,
    version_without_a2a_fields,
    with_last_a2a_fields,
)
from registry.compat.mcpmesh.errors import error_body
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeatResult, FastHeartbeats
from registry.compat.mcpmesh.registration import MARKER_FIELDS, parse_mcpmesh_registration
from registry.errors import (
    MalformedForeignRequest,
    MalformedRequest,
    StaleVersion,
    StoreUnavailable,
    UnprocessableRequest,
)
from registry.service.registration.registration_service import RegistrationService

_HTTP_STATUS: Final[dict[FastHeartbeatResult, int]] = {"unchanged": 200, "changed": 202, "unknown": 410}
_NO_DEPENDENCIES: Final = b',"dependencies_resolved":{},"llm_tools":{}'


class McpMeshHeartbeatFormat:
    """The format in which an mcp-mesh agent registers and updates itself through POST /heartbeat."""

    marker_fields = MARKER_FIELDS

    def __init__(self, registrations: RegistrationService, reflector: Reflector) -> None:
        self._registrations = registrations
        self._reflector = reflector

    async def handle(self, document: dict[str, Any], scope: Scope) -> bytes:
        """Register the agent and return the response with the resolved dependencies of its functions.

        The response to an invalid registration is 200 with `"status": "error"`: the SDK treats any other status as a
        failure of the registry and retries forever. Raises MalformedForeignRequest for a field of a wrong type.
        """
        if not lacks_a2a_fields(document):
            return await self._register(document, scope)
        version = version_without_a2a_fields(self._reflector.view, document.get("agent_id"))
        if version is not None:
            # Without a read: Redis rejects it if the agent has registered again, maybe with A2A fields.
            try:
                return await self._register(document, scope, if_match=str(version))
            except StaleVersion:
                pass
            except StoreUnavailable as error:
                # The store repeats only unconditional registrations.
                if error.outcome == "not_sent" or error.reason == "timeout":
                    raise
        return await self._register(await with_last_a2a_fields(self._reflector, document), scope)

    async def _register(self, document: dict[str, Any], scope: Scope, *, if_match: str | None = None) -> bytes:
        """Register the agent, if its version matches, and return the response. Raises StaleVersion."""
        try:
            parsed = parse_mcpmesh_registration(document, lambda: is_remote(scope))
            registered = await self._registrations.register_and_resolve(parsed.registration, if_match=if_match)
        except MalformedRequest as error:
            raise MalformedForeignRequest(str(error), error.details, body=error_body(str(error))) from error
        except UnprocessableRequest as error:
            rejection = {"status": "error", "message": str(error), "agent_id": document.get("agent_id")}
            return orjson.dumps(rejection | {"timestamp": timestamp()})
        head = b'{"status":"success","message":"Agent %s via heartbeat","agent_id":"%s","timestamp":"%s"' % (
            b"registered" if registered.outcome == "created" else b"updated",
            parsed.registration.agent_id.encode(),
            timestamp().encode(),
        )
        texts = [*parsed.warnings, *map(str, registered.warnings)]
        extra = {"warnings": texts, "surfaces": surface_entries(document)}
        fields = b"".join(b',"%s":%s' % (name.encode(), orjson.dumps(value)) for name, value in extra.items() if value)
        resolution = registered.resolution
        return head + fields + (resolution.encoded_fields if resolution else _NO_DEPENDENCIES) + b"}"


class FastHeartbeatEndpoint:
    """Serves HEAD /heartbeat/{id}, the cheapest and most frequent call of mcp-mesh agents."""

    def __init__(self, fast_heartbeats: FastHeartbeats) -> None:
        self._fast_heartbeats = fast_heartbeats
        self.routes = [Route("/heartbeat/{agent_id}", self, methods=["HEAD"])]

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Respond with 200 (unchanged), 202 (dependencies changed, send a POST) or 410 (unknown agent, register)."""
        result = await self._fast_heartbeats.extend(scope["path_params"]["agent_id"])
        await send_bytes(send, _HTTP_STATUS[result], content_type=None)
