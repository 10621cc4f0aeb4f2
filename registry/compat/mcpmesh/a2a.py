"""A2A surfaces: the URLs under which agents serve clients of the Agent2Agent protocol, and GET /a2a/agents."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.response.json_responses import json_response
from registry.cache.reflector import Reflector
from registry.concurrency.cooperative_iteration import cooperative
from registry.service.discovery.discovery_service import LATEST, Discovery

Json = dict[str, Any]

FLAGS: Final = ("a2a_producer", "a2a_consumer")
_FIELDS: Final = (*FLAGS, "surfaces")
_A2A_AGENT_TYPE: Final = "a2a"
# Every spec with one of the fields contains one of these texts.
_FIELD_MARKERS: Final = (b'"a2a_', b'"surfaces"')


async def with_last_a2a_fields(reflector: Reflector, document: Json) -> Json:
    """Return a registration in which absent A2A flags and surfaces have their last value, as in mcp-mesh.

    A registration that contains all of them costs no read. Raises NotReady or StoreUnavailable otherwise.
    """
    has_flags = all(document.get(flag) is not None for flag in FLAGS)
    if has_flags and (document.get("surfaces") is not None or not document["a2a_producer"]):
        return document
    record = (await reflector.wait_fresh()).records.get(str(document.get("agent_id")))
    if record is None or not any(marker in record.agent.spec for marker in _FIELD_MARKERS):
        return document
    last = orjson.loads(record.agent.spec)
    return document | {name: last[name] for name in _FIELDS if document.get(name) is None and name in last}


def surface_entries(registration: Mapping[str, Any]) -> list[Json]:
    """Return the path and the skill of each valid surface of a registration."""
    surfaces = registration.get("surfaces")
    entries = [each for each in surfaces if isinstance(each, dict)] if isinstance(surfaces, list) else []
    found = [{name: each.get(name) for name in ("path", "skill_id")} for each in entries]
    return [each for each in found if all(value and isinstance(value, str) for value in each.values())]


class A2aRoutes:
    """The HTTP route by which clients of the Agent2Agent protocol find agents."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self.routes = [Route("/a2a/agents", self.surfaces, methods=["GET"])]

    async def surfaces(self, _request: Request) -> Response:
        """GET /a2a/agents: list the surfaces of all agents of the type `a2a`."""
        view, _ = await self._discovery.view(LATEST)
        found: list[Json] = []
        async for record in cooperative(list(view.records.values())):
            if b'"surfaces"' in record.agent.spec:
                spec = orjson.loads(record.agent.spec)
                found += surface_entries(spec) if spec.get("agent_type") == _A2A_AGENT_TYPE else []
        return json_response({"surfaces": found})
