"""The asynchronous client: a method for each call of the registry API."""

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast
from urllib.parse import quote

from mcp_mesh_client.config import ClientOptions, load_config
from mcp_mesh_client.durations import to_seconds
from mcp_mesh_client.errors import InvalidData, RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.filters import (
    AgentFilters,
    CapabilityFilters,
    SelectOptions,
    WaitFilters,
    WatchFilters,
    query_pairs,
)
from mcp_mesh_client.keep_alive import KeepAlive
from mcp_mesh_client.load import Load
from mcp_mesh_client.request_validation import (
    check_id,
    check_ids,
    check_json,
    check_registration,
    check_registrations,
    encode_json,
)
from mcp_mesh_client.retry import ConnectionState
from mcp_mesh_client.shared_client_state import ClientSession
from mcp_mesh_client.transport import Request
from mcp_mesh_client.types.agents import (
    Agent,
    AgentList,
    AgentStatus,
    AgentStatusResponse,
    CapabilityList,
    DiscoverResult,
    DrainResult,
    DrainResults,
    ErrorResponse,
    HeartbeatResult,
    HeartbeatResults,
    OfflineResponse,
    RegisterResult,
    RegisterResults,
    SelectResult,
    UnregisterResult,
)
from mcp_mesh_client.types.dependencies import (
    AgentDependencies,
    AgentDependents,
    DependencyGraph,
)
from mcp_mesh_client.types.health import (
    AgentHealth,
    EndSelfPreservationResult,
    Health,
    Metrics,
    Readiness,
    ServiceDescription,
    ToolList,
)
from mcp_mesh_client.wait_for import MAX_WAIT_FACTOR, CapabilityWaiter
from mcp_mesh_client.watch import Watch

_log = logging.getLogger("mcp_mesh_client")

OFFLINE_RESPONSE: OfflineResponse = {"status": "offline", "message": "Registry unavailable"}


class RegistryClient:
    """Calls a registry at one or more URLs; the default `url` is `MCP_MESH_REGISTRY_URL`.

    Responses are dicts; a rejected request returns one with `"status": "error"`, or raises RequestRejected with the
    option `raise_on_error`. If no replica responds, a call raises RegistryUnavailable (a ConnectionError) or
    RegistryTimeout (a TimeoutError). The constructor needs no registry, and calls succeed again as soon as one is
    reachable. `options` are described in ClientOptions. Use a client in one event loop at a time, and `close()` it.
    """

    def __init__(
        self, url: str | Sequence[str] | None = None, *, token: str | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self._session = ClientSession(load_config(url, token, **options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._session.config.urls)}; {self.state})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def state(self) -> ConnectionState:
        """The state of the registry at the last call: `unknown`, `online`, `degraded` or `offline`."""
        return self._session.caller.state

    async def close(self) -> None:
        """End all watches and keep-alives, and close all connections. Other calls in progress raise ClientClosed."""
        await self._session.close()

    async def register_agent(self, registration_data: Mapping[str, Any]) -> RegisterResult | ErrorResponse:
        """Register an agent, or update its registration.

        A `resource_version` makes the registration conditional. Raises InvalidData with the invalid field, and
        SecurityValidationError if the registration does not satisfy its security context.
        """
        check_registration(registration_data, self._session.config.security_contexts)
        unconditional = registration_data.get("resource_version") is None
        response = await self._session.write(
            RegisterResult, "POST", "/agents", registration_data, repeatable=unconditional
        )
        _log_warnings(response)
        return response

    async def register_with_fallback(
        self, registration_data: Mapping[str, Any]
    ) -> RegisterResult | ErrorResponse | OfflineResponse:
        """Register an agent, or return an OfflineResponse if the registry cannot be reached."""
        try:
            return await self.register_agent(registration_data)
        except (RegistryUnavailable, RegistryTimeout):
            return OFFLINE_RESPONSE.copy()

    async def register_many(self, agents: Sequence[Mapping[str, Any]]) -> RegisterResults | ErrorResponse:
        """Register up to 200 agents; each registration succeeds or fails on its own."""
        check_registrations(agents, self._session.config.security_contexts)
        unconditional = all(agent.get("resource_version") is None for agent in agents)
        response = await self._session.write(
            RegisterResults, "POST", "/agents/batch", {"agents": list(agents)}, repeatable=unconditional
        )
        if "error" not in response:
            for result in response.get("results", ()):
                _log_warnings(result)
        return response

    async def unregister_agent(self, agent_id: str) -> UnregisterResult | ErrorResponse:
        """Remove an agent, without retries: after a failure, `outcome` shows whether it may have been removed."""
        return await self._session.write(
            UnregisterResult, "DELETE", f"/agents/{_path_segment(agent_id)}", repeatable=False
        )

    async def drain(self, agent_id: str) -> DrainResult | ErrorResponse:
        """Take an agent out of service: it stays registered but is not discovered."""
        return await self._session.write(DrainResult, "POST", f"/agents/{_path_segment(agent_id)}/drain")

    async def undrain(self, agent_id: str) -> DrainResult | ErrorResponse:
        """Put an agent back into service."""
        return await self._session.write(DrainResult, "POST", f"/agents/{_path_segment(agent_id)}/undrain")

    async def drain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> DrainResults | ErrorResponse:
        """Take all agents out of service that match the label selector, the namespace or both."""
        return await self._session.write(
            DrainResults, "POST", "/agents/drain", _drain_filter(label_selector, namespace)
        )

    async def undrain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> DrainResults | ErrorResponse:
        """Put all agents back into service that match the label selector, the namespace or both."""
        return await self._session.write(
            DrainResults, "POST", "/agents/undrain", _drain_filter(label_selector, namespace)
        )

    async def heartbeat(
        self,
        agent_id: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        dependencies_version: str | None = None,
        load: float | None = None,
    ) -> HeartbeatResult | ErrorResponse:
        """Send a heartbeat of an agent. After the error `unknown_agent`, register the agent again.

        `metadata` holds the changed metadata. With the `dependencies_version` of the last response, dependencies are
        returned only if they changed. `load` is the load of the agent, for the strategy `least_loaded`.
        """
        document = {
            "agent_id": check_id(agent_id),
            "metadata": metadata,
            "dependencies_version": dependencies_version,
            "load": load,
        }
        document = {name: value for name, value in document.items() if value is not None}
        check_json(document)
        return await self._session.write(HeartbeatResult, "POST", "/heartbeat", document)

    async def heartbeats(self, agent_ids: Sequence[str]) -> HeartbeatResults | ErrorResponse:
        """Send heartbeats of up to 1,000 agents."""
        return await self._session.write(HeartbeatResults, "POST", "/heartbeats", {"agent_ids": check_ids(agent_ids)})

    def keep_alive(self, registration_data: Mapping[str, Any], *, load: Load = None) -> KeepAlive:
        """Keep an agent registered: `async with client.keep_alive(registration_data):`.

        It registers, sends heartbeats, registers again if the registry lost the agent, and removes the agent at the
        end. Without other values in the registration it sends a heartbeat every 5 s; the agent is degraded after three
        missed heartbeats and expired after six. `load` is sent with each heartbeat: a number, or a function that
        returns one. Entering raises InvalidData, or RequestRejected if the registry rejects the registration; while no
        replica can be reached, it waits.
        """
        check_registration(registration_data, self._session.config.security_contexts)
        return self._session.add_keep_alive(KeepAlive(self, registration_data, load))

    async def discover_services(self, query: Mapping[str, Any] | None = None) -> DiscoverResult | ErrorResponse:
        """Find agents with the query of the MCP tool; without a `status` it finds healthy agents."""
        if query is not None and not isinstance(query, Mapping):
            raise InvalidData("query", "query: expected a dict")
        document = dict(query or {})
        check_json(document, "query.")
        return await self._session.call_tool(DiscoverResult, "discover_services", document, "query")

    async def select_agent(self, capability: str, **options: Unpack[SelectOptions]) -> SelectResult | ErrorResponse:
        """Select one agent that provides a capability; the error `no_provider` contains the reason."""
        document = {"capability": capability} | {name: value for name, value in options.items() if value is not None}
        check_json(document)
        return await self._session.call_tool(SelectResult, "select_agent", document, use_cache=False)

    async def agents(self, **filters: Unpack[AgentFilters]) -> AgentList | ErrorResponse:
        """List the agents that match all filters; `wait` with a `resource_version` waits for a change."""
        return await self._session.read(
            AgentList,
            "/agents",
            query_pairs(filters),
            extra_timeout=MAX_WAIT_FACTOR * to_seconds(filters.get("wait") or 0.0, "wait"),
        )

    async def agent(self, agent_id: str) -> Agent | ErrorResponse:
        """Return one agent with its registration and status."""
        return await self._session.read(Agent, f"/agents/{_path_segment(agent_id)}")

    async def get_agent_status(self, agent_id: str) -> AgentStatusResponse | ErrorResponse:
        """Return one agent in the format of the MCP tool, which contains it under `agent`."""
        document = {"agent_id": check_id(agent_id)}
        return await self._session.send(
            AgentStatusResponse, Request("POST", "/mcp/tools/get_agent_status", body=encode_json(document))
        )

    async def agent_status(self, agent_id: str) -> AgentStatus | ErrorResponse:
        """Return only the status of an agent."""
        return await self._session.read(AgentStatus, f"/agents/{_path_segment(agent_id)}/status")

    async def agent_health(self, agent_id: str) -> AgentHealth | ErrorResponse:
        """Return the health of an agent: its thresholds and the time since its last heartbeat."""
        return await self._session.send(AgentHealth, Request("GET", f"/health/{_path_segment(agent_id)}"))

    async def dependencies(self, agent_id: str, *, explain: bool = False) -> AgentDependencies | ErrorResponse:
        """Return the resolved dependencies of an agent; `explain` adds candidates and recent resolutions."""
        query = query_pairs({"explain": explain or None})
        return await self._session.read(AgentDependencies, f"/agents/{_path_segment(agent_id)}/dependencies", query)

    async def dependents(self, agent_id: str) -> AgentDependents | ErrorResponse:
        """Return the functions that depend on an agent, and for which of them it is the only provider."""
        return await self._session.read(AgentDependents, f"/agents/{_path_segment(agent_id)}/dependents")

    async def dependency_graph(self, *, namespace: str | None = None) -> DependencyGraph | ErrorResponse:
        """Return all dependencies, the unresolved dependencies and the cycles, of one namespace or all."""
        return await self._session.read(DependencyGraph, "/dependencies", query_pairs({"namespace": namespace}))

    async def capabilities(self, **filters: Unpack[CapabilityFilters]) -> CapabilityList | ErrorResponse:
        """Search capabilities: one row for each capability of each agent."""
        return await self._session.read(CapabilityList, "/capabilities", query_pairs(filters))

    async def health(self) -> Health | ErrorResponse:
        """Return the health of the replica that responds; only `status` and `ready` without its token."""
        return await self._session.send(Health, Request("GET", "/health"))

    async def ready(self) -> Readiness | ErrorResponse:
        """Return whether any replica of the registry accepts requests."""
        try:
            return await self._session.send(Readiness, Request("GET", "/ready"), fail_fast=True)
        except RegistryUnavailable as failure:
            if failure.response is None or failure.response.get("status") != "not_ready":
                raise
            return {"status": "not_ready"}

    async def end_self_preservation(self, namespace: str | None = None) -> EndSelfPreservationResult | ErrorResponse:
        """End self-preservation of a namespace (`*` is the whole mesh), by default all, if it is active.

        The call is not retried: a retry could end a later period.
        """
        path = "/admin/self-preservation/end"
        if namespace is not None:
            path += f"?namespace={quote(namespace, safe='')}"
        return await self._session.write(EndSelfPreservationResult, "POST", path, repeatable=False)

    async def metrics(self) -> Metrics | ErrorResponse:
        """Return the metrics of the mesh."""
        return await self._session.send(Metrics, Request("GET", "/metrics"))

    async def metrics_text(self) -> str | ErrorResponse:
        """Return the metrics in the Prometheus text format."""
        reply = await self._session.send_raw(Request("GET", "/metrics/prometheus", headers={"accept": "text/plain"}))
        if reply.headers.get("content-type", "").startswith("text/plain"):
            return reply.body.decode()
        return cast("ErrorResponse", self._session.decode(reply))

    async def tools(self) -> ToolList | ErrorResponse:
        """List the MCP tools of the registry with their schemas."""
        return await self._session.send(ToolList, Request("GET", "/mcp/tools"))

    async def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of the API."""
        return self._session.decode(await self._session.send_raw(Request("GET", "/openapi.json")))

    async def describe(self) -> ServiceDescription | ErrorResponse:
        """Return the name, version and endpoints of the service."""
        return await self._session.send(ServiceDescription, Request("GET", "/"))

    async def wait_for(
        self, capability: str, *, timeout: float | str = 30.0, **filters: Unpack[WaitFilters]
    ) -> list[Agent]:
        """Wait until healthy or degraded agents in service provide a capability, and return these agents.

        The registry may start after this call. Raises CapabilityTimeout, a TimeoutError, after `timeout`, a number of
        seconds or a text with a unit, and RequestRejected for invalid filters.
        """
        pairs = query_pairs({"draining": False, **filters, "capability": capability})
        return await CapabilityWaiter(self._session, capability, pairs).wait(to_seconds(timeout, "timeout"))

    def watch(
        self,
        *,
        resource_version: str | int | None = None,
        send_initial: bool = False,
        bookmarks: bool = False,
        **filters: Unpack[WatchFilters],
    ) -> Watch:
        """Watch the changes of agents that match all filters: `async with client.watch() as events`.

        A watch starts now; `send_initial` sends the current state first, as ADDED events. If the registry no longer has
        the changes since the last event, the watch returns the differences to the current state as events. With a
        `resource_version` the watch starts after that version, and raises WatchExpired instead. `bookmarks` adds
        BOOKMARK events.
        """
        if send_initial and resource_version is not None:
            raise InvalidData("send_initial", "send_initial: cannot be combined with resource_version")
        since = None if resource_version is None else str(resource_version)
        # A watch from a version has no initial state to skip.
        with_initial = send_initial or since is not None
        return self._session.watch(query_pairs(filters), since, send_initial=with_initial, bookmarks=bookmarks)


def _log_warnings(response: RegisterResult | ErrorResponse) -> None:
    """Log the warnings in the response to a registration."""
    if "error" not in response:
        for warning in response.get("warnings", ()):
            hint = f" did_you_mean={warning['did_you_mean']}" if "did_you_mean" in warning else ""
            text = 'registration_warning id=%s field=%s problem="%s"%s'
            _log.warning(text, response["agent_id"], warning["field"], warning["problem"], hint)


def _drain_filter(label_selector: str | None, namespace: str | None) -> dict[str, str]:
    """Return the filter of a drain; it must not be empty, so that an omitted argument does not drain the whole mesh."""
    given = {"label_selector": label_selector, "namespace": namespace}
    if all(value is None for value in given.values()):
        raise InvalidData("label_selector", "Missing required field: label_selector, namespace or both")
    check_json(given)
    return {name: value for name, value in given.items() if value is not None}


def _path_segment(agent_id: str) -> str:
    """Escape an id for a URL path; dots too, because a segment of only dots would be a relative path."""
    return quote(check_id(agent_id), safe="").replace(".", "%2E")
