"""Who depends on whom and why, and one agent to call."""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.queries import freshness
from registry.api.request.query_params import Given, boolean, joined, one, parameters, refuse_unknown
from registry.api.response.responses import answer
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.agent import Dependency
from registry.model.registration.schema import DependencyForm
from registry.model.registration.tools_format import dependency_schema
from registry.model.validation.errors import written
from registry.model.validation.schema_errors import read_rule
from registry.service.discovery.discovery import Freshness
from registry.service.resolution.explain import Explained, Explaining
from registry.service.resolution.selection import Selecting

_FRESHNESS = ("resource_version",)
_NEED = ("capability", "version_constraint", "tags", "namespace", "strategy", "key")
SELECT = (*_NEED, "zone", *_FRESHNESS)
_RULE = read_rule(DependencyForm)


def select_schema() -> dict[str, Any]:
    """Give the JSON schema of what select_agent takes: a dependency, and where the choice is made."""
    need = dependency_schema()["properties"]
    properties = {("version_constraint" if name == "version" else name): schema for name, schema in need.items()}
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            **properties,
            "zone": {**text, "description": "for strategy local: agents with this label zone come first"},
            "resource_version": {**text, "description": "0: whatever this replica holds; N: not older than N"},
        },
        "required": ["capability"],
        "additionalProperties": False,
    }


class DependencyRoutes:
    """Shows dependencies from both ends, the whole graph of them, and selects agents."""

    def __init__(self, explaining: Explaining, selecting: Selecting) -> None:
        self._explaining = explaining
        self._selecting = selecting
        self.routes = [
            Route("/agents/{agent_id}/dependencies", self.dependencies, methods=["GET"]),
            Route("/agents/{agent_id}/dependents", self.dependents, methods=["GET"]),
            Route("/dependencies", self.graph, methods=["GET"]),
            Route("/select", self.select, methods=["GET"]),
        ]

    async def dependencies(self, request: Request) -> Response:
        """GET /agents/{id}/dependencies: what they resolve to, and with `explain` why."""
        given = parameters(request.scope["query_string"], ("explain", *_FRESHNESS))
        agent_id, explain = request.path_params["agent_id"], boolean(given, "explain")
        return _shown(await self._explaining.dependencies(agent_id, freshness(given), explain=explain))

    async def dependents(self, request: Request) -> Response:
        """GET /agents/{id}/dependents: whose dependencies this agent meets."""
        given = parameters(request.scope["query_string"], _FRESHNESS)
        return _shown(await self._explaining.dependents(request.path_params["agent_id"], freshness(given)))

    async def graph(self, request: Request) -> Response:
        """GET /dependencies: every dependency, those that are unmet, and the cycles."""
        given = parameters(request.scope["query_string"], ("namespace", *_FRESHNESS))
        return _shown(await self._explaining.graph(one(given, "namespace"), freshness(given)))

    async def select(self, request: Request) -> Response:
        """GET /select."""
        given = parameters(request.scope["query_string"], SELECT)
        asked: dict[str, Any] = {name: one(given, name) for name in SELECT if name != "tags"}
        # Unescaped, a + in a query string is a blank; no tag begins with one.
        asked["tags"] = [f"+{tag[1:]}" if tag.startswith(" ") else tag for tag in joined(given, "tags")]
        try:
            return await self._select(asked, freshness(given))
        except UnprocessableRequest as error:
            raise MalformedRequest(str(error), error.details) from error

    async def selected(self, document: Mapping[str, Any]) -> Response:
        """Select one agent that has what a JSON object asks for."""
        refuse_unknown(document, SELECT)
        fresh = {name: document.get(name) for name in (*_FRESHNESS, "zone")}
        wrong = [
            Detail(name, "expected a string") for name, value in fresh.items() if not isinstance(value, str | None)
        ]
        if wrong:
            raise UnprocessableRequest(f"{wrong[0].field}: {wrong[0].problem}", wrong)
        given: Given = {name: (value,) for name, value in fresh.items() if value}
        return await self._select(document, freshness(given))

    async def _select(self, asked: Mapping[str, Any], fresh: Freshness) -> Response:
        found = await self._selecting.select(_need(asked), asked.get("zone"), fresh)
        chosen = found.provider
        body = orjson.dumps(
            {
                "status": "success",
                "agent_id": chosen.agent_id,
                "endpoint": chosen.endpoint,
                "tool_name": chosen.tool_name,
                "capability": asked["capability"],
                "version": chosen.version,
                "candidates": found.candidates,
            }
        )
        whole = b'%s,"agent":%s}' % (body[:-1], found.record.body)
        return answer(whole, version=found.version, behind=found.behind)


def _need(asked: Mapping[str, Any]) -> Dependency:
    """Read what is asked for. Raises UnprocessableRequest naming every bad field."""
    document = {name: asked[name] for name in _NEED if asked.get(name) is not None}
    if "version_constraint" in document:
        document["version"] = document.pop("version_constraint")
    wrong = [
        Detail(written(path).replace("version", "version_constraint", 1), problem)
        for path, problem in _RULE.find_problems(document)
    ]
    for strategy, field in (("sticky", "key"), ("local", "zone")):
        if asked.get("strategy") == strategy and not asked.get(field):
            wrong.append(Detail(field, f"is required with strategy {strategy}"))
    if wrong:
        raise UnprocessableRequest(f"{wrong[0].field} {wrong[0].problem}", wrong)
    return msgspec.convert(document, Dependency)


def _shown(explained: Explained) -> Response:
    body = {**explained.found, "resource_version": str(explained.version)}
    return answer(orjson.dumps(body), version=explained.version, behind=explained.behind)
