"""The REST form: agents, one agent, capabilities, and many at once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp

from registry.api.endpoints.list_agents import ListRoute
from registry.api.error_responses import body_of
from registry.api.request.body import read_object
from registry.api.request.queries import capability_query, freshness
from registry.api.request.query_params import parameters, refuse_preconditions
from registry.api.response.responses import answer, search, success, timestamp
from registry.api.router import Methods
from registry.errors import Detail, RegistryError, UnprocessableRequest
from registry.model.encoding.agent_json import rfc3339
from registry.model.registration.parse import read_registration
from registry.service.discovery.discovery import Discovery, Sight
from registry.service.liveness.agent_health import Liveness
from registry.service.liveness.heartbeat import Wiring
from registry.service.registration.registration import Registrations

_MOST_HEARTBEATS = 1000
_MOST_REGISTRATIONS = 200


class AgentRoutes:
    """Registers, lists, shows and removes agents."""

    def __init__(
        self,
        registrations: Registrations,
        discovery: Discovery,
        liveness: Liveness,
        wiring: Wiring,
        listing: ListRoute,
    ) -> None:
        self._registrations = registrations
        self._wiring = wiring
        self._discovery = discovery
        self._liveness = liveness
        self.routes = [
            _route("/agents", GET=listing, POST=request_response(self.register)),
            Route("/agents/batch", self.register_many, methods=["POST"]),
            _route("/agents/{agent_id}", GET=request_response(self.show), DELETE=request_response(self.unregister)),
            Route("/agents/{agent_id}/status", self.status, methods=["GET"]),
            Route("/capabilities", self.capabilities, methods=["GET"]),
            Route("/heartbeats", self.beat_many, methods=["POST"]),
        ]

    async def register(self, request: Request) -> Response:
        """POST /agents."""
        document = await read_object(request.scope, request.receive)
        return success(**await self.registered(document, request.headers))

    async def registered(self, document: object, headers: Mapping[str, str], path: str = "") -> dict[str, Any]:
        """Register one agent and return what the answer says of it; `path` stands before the fields errors name.

        `headers` may hold the preconditions `if-match` and `if-none-match`.
        """
        registration = read_registration(document, path)
        done = await self._registrations.register(
            registration,
            if_match=headers.get("if-match"),
            if_none_match=headers.get("if-none-match"),
            path=path,
        )
        wired = await self._wiring.registered(registration)
        return {
            "agent_id": registration.agent_id,
            "resource_version": str(done.version),
            "message": f"Agent {registration.name} registered successfully",
            **({} if wired is None else wired.fields),
        }

    async def register_many(self, request: Request) -> Response:
        """POST /agents/batch: each succeeds or fails alone, under a precondition of its own."""
        refuse_preconditions(request.headers, "each agent of a batch has its own resource_version")
        document = await read_object(request.scope, request.receive)
        agents = _listed(document, "agents", _MOST_REGISTRATIONS)
        done = await asyncio.gather(
            *(self.registered(agent, request.headers, f"agents[{at}].") for at, agent in enumerate(agents)),
            return_exceptions=True,
        )
        results = []
        for result in done:
            if isinstance(result, RegistryError):
                results.append(body_of(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                results.append({"status": "success", **result})
        return success(results=results, count=len(results))

    async def show(self, request: Request) -> Response:
        """GET /agents/{id}: the agent itself."""
        sight = await self.seen(request)
        return answer(sight.record.body, version=sight.record.agent.version, behind=sight.behind)

    async def seen(self, request: Request) -> Sight:
        """Return the agent of the path, as fresh as the query string wants it."""
        given = parameters(request.scope["query_string"], ("resource_version",))
        return await self._discovery.agent(request.path_params["agent_id"], freshness(given))

    async def status(self, request: Request) -> Response:
        """GET /agents/{id}/status: the status alone."""
        sight = await self.seen(request)
        agent, heartbeat = sight.record.agent, sight.record.heartbeat
        return answer(
            orjson.dumps(
                {
                    "agent_id": agent.id,
                    "status": agent.status,
                    "last_heartbeat": None if heartbeat is None else rfc3339(heartbeat),
                    "resource_version": str(agent.version),
                }
            ),
            version=agent.version,
            behind=sight.behind,
        )

    async def unregister(self, request: Request) -> Response:
        """DELETE /agents/{id}."""
        parameters(request.scope["query_string"], ())
        refuse_preconditions(request.headers, "unregistering takes no precondition")
        return await self.unregistered(request.path_params["agent_id"])

    async def unregistered(self, agent_id: str) -> Response:
        """Remove one agent and say so."""
        version = await self._registrations.unregister(agent_id)
        message = f"Agent {agent_id} unregistered successfully"
        return success(agent_id=agent_id, resource_version=str(version), message=message)

    async def capabilities(self, request: Request) -> Response:
        """GET /capabilities."""
        return search(await self._discovery.capabilities(*capability_query(request.scope["query_string"])))

    async def beat_many(self, request: Request) -> Response:
        """POST /heartbeats: many agents in one call, each by itself."""
        document = await read_object(request.scope, request.receive)
        ids = _listed(document, "agent_ids", _MOST_HEARTBEATS)
        wrong = [at for at, agent_id in enumerate(ids) if not isinstance(agent_id, str)]
        if wrong:
            details = [Detail(f"agent_ids[{at}]", "expected the id of an agent, a string") for at in wrong]
            raise UnprocessableRequest(f"{details[0].field}: {details[0].problem}", details)
        beats = await self._liveness.beats(ids)
        results = {
            agent_id: {"status": "success", "timestamp": rfc3339(beat)} if isinstance(beat, int) else body_of(beat)
            for agent_id, beat in zip(ids, beats, strict=True)
        }
        return success(results=results, count=len(results), timestamp=timestamp())


def _route(path: str, **apps: ASGIApp) -> Route:
    """Return the route of a path with several methods."""
    methods = Methods(**apps)
    return Route(path, methods, methods=methods.methods)


def _listed(document: dict[str, Any], field: str, most: int) -> Sequence[Any]:
    """Return the list under a field of the body, which holds at most so many."""
    given = document.get(field)
    if not isinstance(given, list):
        problem = "expected a list"
    elif len(given) > most:
        problem = f"holds {len(given)}, at most {most} go into one call"
    else:
        return given
    raise UnprocessableRequest(f"{field}: {problem}", [Detail(field, problem)])
