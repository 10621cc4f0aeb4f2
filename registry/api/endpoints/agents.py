"""Endpoints of agents and their capabilities, and batch calls for registrations and heartbeats."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp

from registry.api.endpoints.list_agents import ListAgentsEndpoint
from registry.api.error_responses import error_body
from registry.api.request.body import read_object
from registry.api.request.query_params import parse_query, reject_preconditions
from registry.api.request.query_parsers import VERSION_PARAM, freshness, parse_capability_query
from registry.api.request.registration_body import register_document
from registry.api.response.json_responses import (
    capability_list_response,
    json_response,
    success_response,
    timestamp,
    unregistration_response,
)
from registry.api.router import MethodRouter
from registry.errors import Detail, RegistryError, UnprocessableRequest
from registry.model.encoding.agent_json import rfc3339
from registry.service.discovery.discovery_service import AgentSnapshot, Discovery
from registry.service.liveness.heartbeat_service import HeartbeatService
from registry.service.registration.registration_service import RegistrationService

MAX_HEARTBEATS_PER_CALL = 1000
MAX_REGISTRATIONS_PER_CALL = 200


class AgentRoutes:
    """The routes to register, list, get and unregister agents, to search capabilities, and to send heartbeats."""

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
        """POST /agents: register an agent."""
        document = await read_object(request.scope, request.receive)
        registered = await register_document(self._registrations, document, request.headers, request.scope)
        return success_response(**registered)

    async def register_many(self, request: Request) -> Response:
        """POST /agents/batch: register agents, each with a result and a precondition of its own."""
        reject_preconditions(request.headers, "not supported for a batch; set resource_version on each agent")
        document = await read_object(request.scope, request.receive)
        agents = _require_list(document, "agents", MAX_REGISTRATIONS_PER_CALL)
        outcomes = await asyncio.gather(
            *(
                register_document(self._registrations, agent, request.headers, request.scope, f"agents[{index}].")
                for index, agent in enumerate(agents)
            ),
            return_exceptions=True,
        )
        results = []
        for outcome in outcomes:
            if isinstance(outcome, RegistryError):
                results.append(error_body(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                results.append({"status": "success", **outcome})
        return success_response(results=results, count=len(results))

    async def show(self, request: Request) -> Response:
        """GET /agents/{id}: one agent."""
        snapshot = await self._read_agent(request)
        return json_response(snapshot.record.json, version=snapshot.record.agent.version, staleness=snapshot.staleness)

    async def _read_agent(self, request: Request) -> AgentSnapshot:
        """Return the agent whose id is in the path, as fresh as the query string requires."""
        params = parse_query(request.scope["query_string"], VERSION_PARAM)
        return await self._discovery.agent(request.path_params["agent_id"], freshness(params))

    async def status(self, request: Request) -> Response:
        """GET /agents/{id}/status: the status and the last heartbeat of one agent."""
        snapshot = await self._read_agent(request)
        agent, heartbeat = snapshot.record.agent, snapshot.record.heartbeat
        document = {
            "agent_id": agent.id,
            "status": agent.status,
            "last_heartbeat": None if heartbeat is None else rfc3339(heartbeat),
            "resource_version": str(agent.version),
        }
        return json_response(document, version=agent.version, staleness=snapshot.staleness)

    async def unregister(self, request: Request) -> Response:
        """DELETE /agents/{id}: unregister one agent."""
        parse_query(request.scope["query_string"], ())
        reject_preconditions(request.headers, "not supported for DELETE")
        agent_id = request.path_params["agent_id"]
        return unregistration_response(agent_id, await self._registrations.unregister(agent_id))

    async def capabilities(self, request: Request) -> Response:
        """GET /capabilities: search capabilities."""
        found = await self._discovery.capabilities(*parse_capability_query(request.scope["query_string"]))
        return await capability_list_response(found)

    async def heartbeat_many(self, request: Request) -> Response:
        """POST /heartbeats: record heartbeats of many agents, each with a result of its own."""
        document = await read_object(request.scope, request.receive)
        ids = _require_list(document, "agent_ids", MAX_HEARTBEATS_PER_CALL)
        problems = [
            Detail(f"agent_ids[{index}]", "expected an agent id, a string")
            for index, agent_id in enumerate(ids)
            if not isinstance(agent_id, str)
        ]
        if problems:
            raise UnprocessableRequest.of(problems)
        outcomes = await self._heartbeats.heartbeat_many(ids)
        results = {
            agent_id: {"status": "success", "timestamp": rfc3339(outcome)}
            if isinstance(outcome, int)
            else error_body(outcome)
            for agent_id, outcome in zip(ids, outcomes, strict=True)
        }
        return success_response(results=results, count=len(results), timestamp=timestamp())


def _route(path: str, **apps: ASGIApp) -> Route:
    """Return one route that serves several HTTP methods of a path."""
    methods = MethodRouter(**apps)
    return Route(path, methods, methods=methods.methods)


def _require_list(document: dict[str, Any], field: str, max_items: int) -> Sequence[Any]:
    """Return a list from the body of a batch call. Raises UnprocessableRequest for more than `max_items`."""
    items = document.get(field)
    if not isinstance(items, list):
        problem = "expected a list"
    elif len(items) > max_items:
        problem = f"contains {len(items)} items; at most {max_items} are allowed per call"
    else:
        return items
    raise UnprocessableRequest.of([Detail(field, problem)])
