"""The three calls a mesh agent makes: all of it by POST, the sign of life by HEAD; it leaves by DELETE as any agent."""

from typing import Final

import orjson
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from registry.api.request.body import parse_object
from registry.api.response.responses import timestamp
from registry.compat.mcpmesh.fast_heartbeat import FastHeartbeatResult, FastHeartbeats
from registry.compat.mcpmesh.registration import parse_mcpmesh_registration
from registry.errors import UnprocessableRequest
from registry.service.registration.registration import RegistrationService

_HTTP_STATUS: Final[dict[FastHeartbeatResult, int]] = {"kept": 200, "moved": 202, "gone": 410}


class HeartbeatRoutes:
    """Serves registrations in flat form, and HEAD: the cheapest call there is, and the most frequent."""

    def __init__(self, registrations: RegistrationService, fast_heartbeats: FastHeartbeats) -> None:
        self._registrations = registrations
        self._fast_heartbeats = fast_heartbeats
        self.routes = [Route("/heartbeat/{agent_id}", self, methods=["HEAD"])]

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """HEAD /heartbeat/{id}: 200 for who is kept, 202 for who should ask anew, 410 for who must register."""
        status = _HTTP_STATUS[await self._fast_heartbeats.extend(scope["path_params"]["agent_id"])]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def register(self, body: bytes) -> bytes:
        """Register an agent in flat form and return what tells it what all its functions get.

        What the mesh does not want of it is answered with 200 and `"status": "error"`: anything else would be taken for
        trouble of the registry, and tried again and again.
        """
        document = parse_object(body)
        try:
            flat = parse_mcpmesh_registration(document)
            done = await self._registrations.register_and_resolve(flat.registration)
        except UnprocessableRequest as error:
            return _rejection_body(document, error)
        head = b'{"status":"success","message":"Agent %s via heartbeat","agent_id":"%s","timestamp":"%s"' % (
            b"registered" if done.outcome == "created" else b"updated",
            flat.registration.agent_id.encode(),
            timestamp().encode(),
        )
        warnings = b',"warnings":%s' % orjson.dumps(flat.warnings) if flat.warnings else b""
        found = done.resolution.encoded_fields if done.resolution else b',"dependencies_resolved":{},"llm_tools":{}'
        return head + warnings + found + b"}"


def _rejection_body(document: dict[str, object], error: UnprocessableRequest) -> bytes:
    agent_id = document.get("agent_id")
    return orjson.dumps({"status": "error", "message": str(error), "agent_id": agent_id, "timestamp": timestamp()})
