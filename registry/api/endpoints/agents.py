"""The REST form: agents, one agent, capabilities, and many at once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp

from registry.api.endpoints.list_agents import ListAgentsEndpoint
from registry.api.error_responses import error_body
from registry.api.request.body import read_object
from registry.api.request.queries import freshness, parse_capability_query
from registry.api.request.query_params import parse_query, reject_preconditions
from registry.api.request.registrations import register_document
from registry.api.response.responses import (
    capability_list_response,
    json_response,
    success_response,
    timestamp,
    unregistration_response,
)
from registry.api.router import MethodRouter
from registry.errors import Detail, RegistryError, UnprocessableRequest
from registry.model.encoding.agent_json import rfc3339
from registry.service.discovery.discovery import AgentSnapshot, Discovery
from registry.service.liveness.heartbeat import HeartbeatService
from registry.service.registration.registration import RegistrationService

_MAX_HEARTBEATS_PER_CALL = 1000
_MAX_REGISTRATIONS_PER_CALL = 200


class AgentRoutes:
    """Registers, lists, shows and removes agents."""

    def __init__(
        self,
        registrations: RegistrationService,
        discovery: Discovery,
        heartbeats: HeartbeatService,
        list_endpoint: ListAgentsEndpoint,
    ) -> None:
        self._registrations = registrations
        self._heartbeats = heartbeats
        self._discovery = discovery
        self.routes = [
            _route("/agents", GET=list_endpoint, POST=request_response(self.register)),
            Route("/agents/batch", self.register_many, methods=["POST"]),
            _route("/agents/{agent_id}", GET=request_response(self.show), DELETE=request_response(self.unregister)),
            Route("/agents/{agent_id}/status", self.status, methods=["GET"]),
            Route("/capabilities", self.capabilities, methods=["GET"]),
            Route("/heartbeats", self.heartbeat_many, methods=["POST"]),
        ]

    async def register(self, request: Request) -> Response:
        """POST /agents."""
        document = await read_object(request.scope, request.receive)
        return success_response(**await register_document(self._registrations, document, request.headers))

    async def register_many(self, request: Request) -> Response:
        """POST /agents/batch: each succeeds or fails alone, under a precondition of its own."""
        reject_preconditions(request.headers, "not supported for a batch; set resource_version on each agent")
        document = await read_object(request.scope, request.receive)
        agents = _require_list(document, "agents", _MAX_REGISTRATIONS_PER_CALL)
        done = await asyncio.gather(
            *(
                register_document(self._registrations, agent, request.headers, f"agents[{at}].")
                for at, agent in enumerate(agents)
            ),
            return_exceptions=True,
        )
        results = []
        for result in done:
            if isinstance(result, RegistryError):
                results.append(error_body(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                results.append({"status": "success", **result})
        return success_response(results=results, count=len(results))

    async def show(self, request: Request) -> Response:
        """GET /agents/{id}: the agent itself."""
        sight = await self._read_agent(request)
        return json_response(sight.record.json, version=sight.record.agent.version, staleness=sight.staleness)

    async def _read_agent(self, request: Request) -> AgentSnapshot:
        """Return the agent of the path, as fresh as the query string wants it."""
        given = parse_query(request.scope["query_string"], ("resource_version",))
        return await self._discovery.agent(request.path_params["agent_id"], freshness(given))

    async def status(self, request: Request) -> Response:
        """GET /agents/{id}/status: the status alone."""
        sight = await self._read_agent(request)
        agent, heartbeat = sight.record.agent, sight.record.heartbeat
        return json_response(
            orjson.dumps(
                {
                    "agent_id": agent.id,
                    "status": agent.status,
                    "last_heartbeat": None if heartbeat is None else rfc3339(heartbeat),
                    "resource_version": str(agent.version),
                }
            ),
            version=agent.version,
            staleness=sight.staleness,
        )

    async def unregister(self, request: Request) -> Response:
        """DELETE /agents/{id}."""
        parse_query(request.scope["query_string"], ())
        reject_preconditions(request.headers, "not supported for DELETE")
        agent_id = request.path_params["agent_id"]
        return unregistration_response(agent_id, await self._registrations.unregister(agent_id))

    async def capabilities(self, request: Request) -> Response:
        """GET /capabilities."""
        return capability_list_response(
            await self._discovery.capabilities(*parse_capability_query(request.scope["query_string"]))
        )

    async def heartbeat_many(self, request: Request) -> Response:
        """POST /heartbeats: many agents in one call, each by itself."""
        document = await read_object(request.scope, request.receive)
        ids = _require_list(document, "agent_ids", _MAX_HEARTBEATS_PER_CALL)
        wrong = [at for at, agent_id in enumerate(ids) if not isinstance(agent_id, str)]
        if wrong:
            details = [Detail(f"agent_ids[{at}]", "expected an agent id, a string") for at in wrong]
            raise UnprocessableRequest.of(details)
        beats = await self._heartbeats.heartbeat_many(ids)
        results = {
            agent_id: {"status": "success", "timestamp": rfc3339(beat)} if isinstance(beat, int) else error_body(beat)
            for agent_id, beat in zip(ids, beats, strict=True)
        }
        return success_response(results=results, count=len(results), timestamp=timestamp())


def _route(path: str, **apps: ASGIApp) -> Route:
    """Return the route of a path with several methods."""
    methods = MethodRouter(**apps)
    return Route(path, methods, methods=methods.methods)


def _require_list(document: dict[str, Any], field: str, max_items: int) -> Sequence[Any]:
    """Return the list under a field of the body, which holds at most so many."""
    given = document.get(field)
    if not isinstance(given, list):
        problem = "expected a list"
    elif len(given) > max_items:
        problem = f"contains {len(given)} items; at most {max_items} are allowed per call"
    else:
        return given
    raise UnprocessableRequest(f"{field}: {problem}", [Detail(field, problem)])
