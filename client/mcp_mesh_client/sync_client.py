"""The synchronous client. Generated from client.py by generate_sync.py; do not edit."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from mcp_mesh_client.filters import AgentFilters, CapabilityFilters, SelectOptions, WaitFilters, WatchFilters
from mcp_mesh_client.sync_session import SyncSession, SyncWatch
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
        """Register an agent, or change what it says of itself.

        With a `resource_version` in it the registration is conditional. Raises InvalidData naming the field that is
        wrong, SecurityValidationError where it is the security context.
        """
        return self._thread.run(self._client.register_agent(registration_data))

    def register_with_fallback(
        self, registration_data: Mapping[str, Any]
    ) -> RegisterResult | ErrorResponse | OfflineResponse:
        """Register an agent if the registry can be reached; else answer that it is offline, and go on without."""
        return self._thread.run(self._client.register_with_fallback(registration_data))

    def register_many(self, agents: Sequence[Mapping[str, Any]]) -> RegisterResults | ErrorResponse:
        """Register up to 200 agents, each of which succeeds or fails alone."""
        return self._thread.run(self._client.register_many(agents))

    def unregister_agent(self, agent_id: str) -> UnregisterResult | ErrorResponse:
        """Remove an agent. It is not sent twice: after a failure `outcome` tells whether it may have happened."""
        return self._thread.run(self._client.unregister_agent(agent_id))

    def drain(self, agent_id: str) -> DrainResult | ErrorResponse:
        """Take an agent out of service: it lives on, but is not discovered."""
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
        """Tell that an agent is alive. `unknown_agent` means: register it again.

        `metadata` is what is new of it. With the `dependencies_version` of the last answer its dependencies are told
        only where something changed. `load` is how busy it is, for the strategy `least_loaded`.
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
        """Tell that up to 1,000 agents are alive."""
        return self._thread.run(self._client.heartbeats(agent_ids))

    def discover_services(self, query: Mapping[str, Any] | None = None) -> DiscoverResult | ErrorResponse:
        """Find agents by the query object of the tool: healthy ones unless its `status` says otherwise."""
        return self._thread.run(self._client.discover_services(query))

    def select_agent(self, capability: str, **options: Unpack[SelectOptions]) -> SelectResult | ErrorResponse:
        """Choose one agent to call that has a capability. `no_provider` says why there is none."""
        return self._thread.run(self._client.select_agent(capability, **options))

    def agents(self, **filters: Unpack[AgentFilters]) -> AgentList | ErrorResponse:
        """List agents that match all filters; with `wait` and a `resource_version`, once the answer has changed."""
        return self._thread.run(self._client.agents(**filters))

    def agent(self, agent_id: str) -> Agent | ErrorResponse:
        """Show one agent."""
        return self._thread.run(self._client.agent(agent_id))

    def get_agent_status(self, agent_id: str) -> AgentStatusResponse | ErrorResponse:
        """Show one agent, as the tool does: under `agent`, beside a `status` of the call."""
        return self._thread.run(self._client.get_agent_status(agent_id))

    def agent_status(self, agent_id: str) -> AgentStatus | ErrorResponse:
        """Show an agent's status alone."""
        return self._thread.run(self._client.agent_status(agent_id))

    def agent_health(self, agent_id: str) -> AgentHealth | ErrorResponse:
        """Show how an agent is, with its thresholds and the time since its last heartbeat."""
        return self._thread.run(self._client.agent_health(agent_id))

    def dependencies(self, agent_id: str, *, explain: bool = False) -> AgentDependencies | ErrorResponse:
        """Show what an agent's dependencies resolve to; to `explain` also whom the registry looked at, and lately."""
        return self._thread.run(self._client.dependencies(agent_id, explain=explain))

    def dependents(self, agent_id: str) -> AgentDependents | ErrorResponse:
        """Return the functions whose dependencies an agent provides, each with the number of other providers."""
        return self._thread.run(self._client.dependents(agent_id))

    def dependency_graph(self, *, namespace: str | None = None) -> DependencyGraph | ErrorResponse:
        """Return all dependencies, the unresolved ones, and the cycles, of one namespace or of all."""
        return self._thread.run(self._client.dependency_graph(namespace=namespace))

    def capabilities(self, **filters: Unpack[CapabilityFilters]) -> CapabilityList | ErrorResponse:
        """Search capabilities: one row for each capability of each agent."""
        return self._thread.run(self._client.capabilities(**filters))

    def health(self) -> Health | ErrorResponse:
        """Show how the replica is that answers."""
        return self._thread.run(self._client.health())

    def ready(self) -> Readiness | ErrorResponse:
        """Tell whether any replica takes requests."""
        return self._thread.run(self._client.ready())

    def end_self_preservation(self) -> EndSelfPreservationResult | ErrorResponse:
        """End the hold of a mass silence, if one is on. It is not sent twice, for the next hold is another one."""
        return self._thread.run(self._client.end_self_preservation())

    def metrics(self) -> Metrics | ErrorResponse:
        """Show the numbers of the mesh."""
        return self._thread.run(self._client.metrics())

    def metrics_text(self) -> str | ErrorResponse:
        """Show the numbers as Prometheus reads them."""
        return self._thread.run(self._client.metrics_text())

    def tools(self) -> ToolList | ErrorResponse:
        """List the registry's MCP tools with their schemas."""
        return self._thread.run(self._client.tools())

    def openapi(self) -> dict[str, Any]:
        """Return the API as an OpenAPI document."""
        return self._thread.run(self._client.openapi())

    def describe(self) -> ServiceDescription | ErrorResponse:
        """Tell what answers: its name, version and endpoints."""
        return self._thread.run(self._client.describe())

    def wait_for(self, capability: str, *, timeout: float = 30.0, **filters: Unpack[WaitFilters]) -> list[Agent]:
        """Wait until live agents in service provide a capability, and return them. The registry may start later.

        Raises CapabilityTimeout, a TimeoutError, after `timeout` seconds, and RequestRejected for invalid filters.
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
        """Follow the changes of agents that match all filters: `with client.watch() as events`.

        It begins now, with the state as ADDED events where `send_initial`; or after a `resource_version`, and then
        raises WatchExpired where the registry no longer knows what came after it. `bookmarks` are events, too, if
        wanted. Where events were lost for good, the difference to what is there now is told instead.
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
