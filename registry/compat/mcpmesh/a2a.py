"""A2A surfaces: the URLs under which agents serve clients of the Agent2Agent protocol, and GET /a2a/agents."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.response.json_responses import json_response
from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.concurrency.cooperative_iteration import cooperative
from registry.service.discovery.discovery_service import LATEST, Discovery

Json = dict[str, Any]

FLAGS: Final = ("a2a_producer", "a2a_consumer")
_FIELDS: Final = (*FLAGS, "surfaces")
_A2A_AGENT_TYPE: Final = "a2a"
# Every spec with one of the fields contains one of these texts.
_FIELD_MARKERS: Final = (b'"a2a_', b'"surfaces"')


def lacks_a2a_fields(registration: Json) -> bool:
    """Return whether an A2A flag is absent, or the surfaces of a producer."""
    has_flags = all(registration.get(flag) is not None for flag in FLAGS)
    return not has_flags or (registration.get("surfaces") is None and bool(registration["a2a_producer"]))


def version_without_a2a_fields(view: View | None, agent_id: object) -> int | None:
    """Return the version of an agent without A2A fields; None for another agent, or if the view does not have it."""
    record = None if view is None else view.records.get(str(agent_id))
    return None if record is None or _has_a2a_fields(record) else record.agent.version


async def with_last_a2a_fields(reflector: Reflector, registration: Json) -> Json:
    """Return a registration in which absent A2A flags and surfaces have their last value, as in mcp-mesh.

    Raises NotReady or StoreUnavailable.
    """
    record = (await reflector.wait_fresh()).records.get(str(registration.get("agent_id")))
    if record is None or not _has_a2a_fields(record):
        return registration
    last = orjson.loads(record.agent.spec)
    return registration | {name: last[name] for name in _FIELDS if registration.get(name) is None and name in last}


def _has_a2a_fields(record: Record) -> bool:
    return any(marker in record.agent.spec for marker in _FIELD_MARKERS)


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
