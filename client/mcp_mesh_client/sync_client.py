"""The synchronous client. Generated from client.py by generate_sync.py; do not edit."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from mcp_mesh_client.filters import AgentFilters, CapabilityFilters, SelectOptions, WaitFilters, WatchFilters
from mcp_mesh_client.load import Load
from mcp_mesh_client.sync_client_support import SyncKeepAlive, SyncSession, SyncWatch
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
from mcp_mesh_client.types.dependencies import AgentDependencies, AgentDependents, DependencyGraph
from mcp_mesh_client.types.health import (
    AgentHealth,
    EndSelfPreservationResult,
    Health,
    Metrics,
    Readiness,
    ServiceDescription,
    ToolList,
)


class SyncRegistryClient(SyncSession):
    """RegistryClient for code without `await`: in any thread, also inside a running event loop.

    Each method runs the method of RegistryClient on an event loop in a thread that belongs to this client.
    """

    def register_agent(self, registration_data: Mapping[str, Any]) -> RegisterResult | ErrorResponse:
        """Register an agent, or update its registration.

        A `resource_version` makes the registration conditional. Raises InvalidData with the invalid field, and
        SecurityValidationError if the registration does not satisfy its security context.
        """
        return self._thread.run(self._client.register_agent(registration_data))

    def register_with_fallback(
        self, registration_data: Mapping[str, Any]
    ) -> RegisterResult | ErrorResponse | OfflineResponse:
        """Register an agent, or return an OfflineResponse if the registry cannot be reached."""
        return self._thread.run(self._client.register_with_fallback(registration_data))

    def register_many(self, agents: Sequence[Mapping[str, Any]]) -> RegisterResults | ErrorResponse:
        """Register up to 200 agents; each registration succeeds or fails on its own."""
        return self._thread.run(self._client.register_many(agents))

    def unregister_agent(self, agent_id: str) -> UnregisterResult | ErrorResponse:
        """Remove an agent, without retries: after a failure, `outcome` shows whether it may have been removed."""
        return self._thread.run(self._client.unregister_agent(agent_id))

    def drain(self, agent_id: str) -> DrainResult | ErrorResponse:
        """Take an agent out of service: it stays registered but is not discovered."""
        return self._thread.run(self._client.drain(agent_id))

    def undrain(self, agent_id: str) -> DrainResult | ErrorResponse:
        """Put an agent back into service."""
        return self._thread.run(self._client.undrain(agent_id))

    def drain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> DrainResults | ErrorResponse:
        """Take all agents out of service that match the label selector, the namespace or both."""
        return self._thread.run(self._client.drain_many(label_selector=label_selector, namespace=namespace))

    def undrain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> DrainResults | ErrorResponse:
        """Put all agents back into service that match the label selector, the namespace or both."""
        return self._thread.run(self._client.undrain_many(label_selector=label_selector, namespace=namespace))

    def heartbeat(
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
        return self._thread.run(
            self._client.heartbeat(
                agent_id,
                metadata,
                dependencies_version=dependencies_version,
                load=load,
            ),
        )

    def heartbeats(self, agent_ids: Sequence[str]) -> HeartbeatResults | ErrorResponse:
        """Send heartbeats of up to 1,000 agents."""
        return self._thread.run(self._client.heartbeats(agent_ids))

    def keep_alive(self, registration_data: Mapping[str, Any], *, load: Load = None) -> SyncKeepAlive:
        """Keep an agent registered: `with client.keep_alive(registration_data):`.

        It registers, sends heartbeats, registers again if the registry lost the agent, and removes the agent at the
        end. Without other values in the registration it sends a heartbeat every 5 s; the agent is degraded after three
        missed heartbeats and expired after six. `load` is sent with each heartbeat: a number, or a function that
        returns one. Entering raises InvalidData, or RequestRejected if the registry rejects the registration; while no
        replica can be reached, it waits.
        """
        return SyncKeepAlive(self._client.keep_alive(registration_data, load=load), self._thread)

    def discover_services(self, query: Mapping[str, Any] | None = None) -> DiscoverResult | ErrorResponse:
        """Find agents with the query of the MCP tool; without a `status` it finds healthy agents."""
        return self._thread.run(self._client.discover_services(query))

    def select_agent(self, capability: str, **options: Unpack[SelectOptions]) -> SelectResult | ErrorResponse:
        """Select one agent that provides a capability; the error `no_provider` contains the reason."""
        return self._thread.run(self._client.select_agent(capability, **options))

    def agents(self, **filters: Unpack[AgentFilters]) -> AgentList | ErrorResponse:
        """List the agents that match all filters; `wait` with a `resource_version` waits for a change."""
        return self._thread.run(self._client.agents(**filters))

    def agent(self, agent_id: str) -> Agent | ErrorResponse:
        """Return one agent with its registration and status."""
        return self._thread.run(self._client.agent(agent_id))

    def get_agent_status(self, agent_id: str) -> AgentStatusResponse | ErrorResponse:
        """Return one agent in the format of the MCP tool, which contains it under `agent`."""
        return self._thread.run(self._client.get_agent_status(agent_id))

    def agent_status(self, agent_id: str) -> AgentStatus | ErrorResponse:
        """Return only the status of an agent."""
        return self._thread.run(self._client.agent_status(agent_id))

    def agent_health(self, agent_id: str) -> AgentHealth | ErrorResponse:
        """Return the health of an agent: its thresholds and the time since its last heartbeat."""
        return self._thread.run(self._client.agent_health(agent_id))

    def dependencies(self, agent_id: str, *, explain: bool = False) -> AgentDependencies | ErrorResponse:
        """Return the resolved dependencies of an agent; `explain` adds candidates and recent resolutions."""
        return self._thread.run(self._client.dependencies(agent_id, explain=explain))

    def dependents(self, agent_id: str) -> AgentDependents | ErrorResponse:
        """Return the functions that depend on an agent, and for which of them it is the only provider."""
        return self._thread.run(self._client.dependents(agent_id))

    def dependency_graph(self, *, namespace: str | None = None) -> DependencyGraph | ErrorResponse:
        """Return all dependencies, the unresolved dependencies and the cycles, of one namespace or all."""
        return self._thread.run(self._client.dependency_graph(namespace=namespace))

    def capabilities(self, **filters: Unpack[CapabilityFilters]) -> CapabilityList | ErrorResponse:
        """Search capabilities: one row for each capability of each agent."""
        return self._thread.run(self._client.capabilities(**filters))

    def health(self) -> Health | ErrorResponse:
        """Return the health of the replica that responds; only `status` and `ready` without its token."""
        return self._thread.run(self._client.health())

    def ready(self) -> Readiness | ErrorResponse:
        """Return whether any replica of the registry accepts requests."""
        return self._thread.run(self._client.ready())

    def end_self_preservation(self, namespace: str | None = None) -> EndSelfPreservationResult | ErrorResponse:
        """End self-preservation of a namespace (`*` is the whole mesh), by default all, if it is active.

        The call is not retried: a retry could end a later period.
        """
        return self._thread.run(self._client.end_self_preservation(namespace))

    def metrics(self) -> Metrics | ErrorResponse:
        """Return the metrics of the mesh."""
        return self._thread.run(self._client.metrics())

    def metrics_text(self) -> str | ErrorResponse:
        """Return the metrics in the Prometheus text format."""
        return self._thread.run(self._client.metrics_text())

    def tools(self) -> ToolList | ErrorResponse:
        """List the MCP tools of the registry with their schemas."""
        return self._thread.run(self._client.tools())

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of the API."""
        return self._thread.run(self._client.openapi())

    def describe(self) -> ServiceDescription | ErrorResponse:
        """Return the name, version and endpoints of the service."""
        return self._thread.run(self._client.describe())

    def wait_for(
        self, capability: str, *, timeout: float | str = 30.0, **filters: Unpack[WaitFilters]
    ) -> list[Agent]:
        """Wait until healthy or degraded agents in service provide a capability, and return these agents.

        The registry may start after this call. Raises CapabilityTimeout, a TimeoutError, after `timeout`, a number of
        seconds or a text with a unit, and RequestRejected for invalid filters.
        """
        return self._thread.run(self._client.wait_for(capability, timeout=timeout, **filters))

    def watch(
        self,
        *,
        resource_version: str | int | None = None,
        send_initial: bool = False,
        bookmarks: bool = False,
        **filters: Unpack[WatchFilters],
    ) -> SyncWatch:
        """Watch the changes of agents that match all filters: `with client.watch() as events`.

        A watch starts now; `send_initial` sends the current state first, as ADDED events. If the registry no longer has
        the changes since the last event, the watch returns the differences to the current state as events. With a
        `resource_version` the watch starts after that version, and raises WatchExpired instead. `bookmarks` adds
        BOOKMARK events.
        """
        return SyncWatch(
            self._client.watch(
                resource_version=resource_version,
                send_initial=send_initial,
                bookmarks=bookmarks,
                **filters,
            ),
            self._thread,
        )
