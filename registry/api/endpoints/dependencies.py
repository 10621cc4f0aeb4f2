"""Who depends on whom and why, and one agent to call."""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.api.request.queries import freshness
from registry.api.request.query_params import QueryParams, boolean, comma_list, parse_query, reject_unknown, single
from registry.api.response.responses import json_response
from registry.errors import Detail, MalformedRequest, UnprocessableRequest
from registry.model.agent import Dependency
from registry.model.registration.schema import DependencySchema, dependency_schema
from registry.model.validation.errors import format_path
from registry.model.validation.schema_errors import validator_for
from registry.service.discovery.discovery import Freshness
from registry.service.resolution.explain import ExplainResult, ResolutionExplainer
from registry.service.resolution.selection import Selector

_FRESHNESS_PARAMS = ("resource_version",)
_DEPENDENCY_PARAMS = ("capability", "version_constraint", "tags", "namespace", "strategy", "key")
SELECT_PARAMS = (*_DEPENDENCY_PARAMS, "zone", *_FRESHNESS_PARAMS)
_DEPENDENCY_VALIDATOR = validator_for(DependencySchema)


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

    def __init__(self, explainer: ResolutionExplainer, selector: Selector) -> None:
        self._explainer = explainer
        self._selector = selector
        self.routes = [
            Route("/agents/{agent_id}/dependencies", self.dependencies, methods=["GET"]),
            Route("/agents/{agent_id}/dependents", self.dependents, methods=["GET"]),
            Route("/dependencies", self.graph, methods=["GET"]),
            Route("/select", self.select, methods=["GET"]),
        ]

    async def dependencies(self, request: Request) -> Response:
        """GET /agents/{id}/dependencies: what they resolve to, and with `explain` why."""
        given = parse_query(request.scope["query_string"], ("explain", *_FRESHNESS_PARAMS))
        agent_id, explain = request.path_params["agent_id"], boolean(given, "explain")
        return _explanation_response(await self._explainer.dependencies(agent_id, freshness(given), explain=explain))

    async def dependents(self, request: Request) -> Response:
        """GET /agents/{id}/dependents: whose dependencies this agent meets."""
        given = parse_query(request.scope["query_string"], _FRESHNESS_PARAMS)
        return _explanation_response(
            await self._explainer.dependents(request.path_params["agent_id"], freshness(given))
        )

    async def graph(self, request: Request) -> Response:
        """GET /dependencies: all dependencies, the unresolved ones, and the cycles."""
        given = parse_query(request.scope["query_string"], ("namespace", *_FRESHNESS_PARAMS))
        return _explanation_response(await self._explainer.graph(single(given, "namespace"), freshness(given)))

    async def select(self, request: Request) -> Response:
        """GET /select."""
        given = parse_query(request.scope["query_string"], SELECT_PARAMS)
        asked: dict[str, Any] = {name: single(given, name) for name in SELECT_PARAMS if name != "tags"}
        # Unescaped, a + in a query string is a blank; no tag begins with one.
        asked["tags"] = [f"+{tag[1:]}" if tag.startswith(" ") else tag for tag in comma_list(given, "tags")]
        try:
            return await self._select(asked, freshness(given))
        except UnprocessableRequest as error:
            raise MalformedRequest(str(error), error.details) from error

    async def select_document(self, document: Mapping[str, Any]) -> Response:
        """Select one agent that has what a JSON object asks for."""
        reject_unknown(document, SELECT_PARAMS)
        fresh = {name: document.get(name) for name in (*_FRESHNESS_PARAMS, "zone")}
        wrong = [
            Detail(name, "expected a string") for name, value in fresh.items() if not isinstance(value, str | None)
        ]
        if wrong:
            raise UnprocessableRequest.of(wrong)
        given: QueryParams = {name: (value,) for name, value in fresh.items() if value}
        return await self._select(document, freshness(given))

    async def _select(self, params: Mapping[str, Any], fresh: Freshness) -> Response:
        found = await self._selector.select(_parse_dependency(params), params.get("zone"), fresh)
        chosen = found.provider
        body = orjson.dumps(
            {
                "status": "success",
                "agent_id": chosen.agent_id,
                "endpoint": chosen.endpoint,
                "tool_name": chosen.tool_name,
                "capability": params["capability"],
                "version": chosen.version,
                "candidates": found.candidates,
            }
        )
        whole = b'%s,"agent":%s}' % (body[:-1], found.record.json)
        return json_response(whole, version=found.version, staleness=found.staleness)


def _parse_dependency(params: Mapping[str, Any]) -> Dependency:
    """Read what is asked for. Raises UnprocessableRequest naming every bad field."""
    document = {name: params[name] for name in _DEPENDENCY_PARAMS if params.get(name) is not None}
    if "version_constraint" in document:
        document["version"] = document.pop("version_constraint")
    wrong = [
        Detail(format_path(path).replace("version", "version_constraint", 1), problem)
        for path, problem in _DEPENDENCY_VALIDATOR.find_violations(document)
    ]
    for strategy, field in (("sticky", "key"), ("local", "zone")):
        if params.get("strategy") == strategy and not params.get(field):
            wrong.append(Detail(field, f"is required with strategy {strategy}"))
    if wrong:
        raise UnprocessableRequest.of(wrong, separator=" ")
    return msgspec.convert(document, Dependency)


def _explanation_response(explained: ExplainResult) -> Response:
    body = {**explained.fields, "resource_version": str(explained.version)}
    return json_response(orjson.dumps(body), version=explained.version, staleness=explained.staleness)
