"""The client for code without an event loop: the same calls, waited for."""

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from mcp_mesh_client.client import RegistryClient
from mcp_mesh_client.config import ClientOptions
from mcp_mesh_client.errors import ClientClosed
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.filters import AgentFilters, CapabilityFilters, SelectOptions, WaitFilters, WatchFilters
from mcp_mesh_client.retry import ConnectionState
from mcp_mesh_client.types import agents as shapes
from mcp_mesh_client.types import dependencies as wiring
from mcp_mesh_client.types import health as reports
from mcp_mesh_client.types.agents import WatchEvent
from mcp_mesh_client.watch import Watch


class SyncWatch:
    """A watch to iterate over; `with` waits until it stands, and closes it. Another thread may close it, too."""

    def __init__(self, watch: Watch, thread: EventLoopThread) -> None:
        self._watch = watch
        self._thread = thread

    @property
    def resource_version(self) -> str | None:
        """The version of the last event given, or of what was quietly passed since."""
        return self._watch.resource_version

    def __enter__(self) -> Self:
        self._thread.run(self._watch.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        """Wait for the next event. Raises Refused where the registry does not want the watch."""
        try:
            return self._thread.run(self._watch.__anext__())
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None

    def close(self) -> None:
        """End the watch; who waits for an event is told that there are no more."""
        # A client that was closed has closed it.
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._watch.close())


class SyncRegistryClient:
    """RegistryClient for code that does not await, in any thread, inside a running event loop as well.

    Each method is the one of RegistryClient, on an event loop in a thread of this client's own.
    """

    def __init__(
        self, url: str | Sequence[str] | None = None, *, token: str | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self._client = RegistryClient(url, token=token, **options)
        self._thread = EventLoopThread()

    def __repr__(self) -> str:
        return f"Sync{self._client!r}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> ConnectionState:
        """How the registry was when it was last asked: `unknown`, `online`, `degraded` or `offline`."""
        return self._client.state

    def close(self) -> None:
        """End all watches and close all connections. Calls under way, or after it, raise ClientClosed."""
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._client.close())
        self._thread.stop()

    def register_agent(self, registration_data: Mapping[str, Any]) -> shapes.RegisterResult | shapes.ErrorResponse:
        """Register an agent, or change what it says of itself."""
        return self._thread.run(self._client.register_agent(registration_data))

    def register_with_fallback(
        self, registration_data: Mapping[str, Any]
    ) -> shapes.RegisterResult | shapes.ErrorResponse | shapes.OfflineResponse:
        """Register an agent if the registry can be reached; else answer that it is offline, and go on without."""
        return self._thread.run(self._client.register_with_fallback(registration_data))

    def register_many(self, agents: Sequence[Mapping[str, Any]]) -> shapes.RegisterResults | shapes.ErrorResponse:
        """Register up to 200 agents, each of which succeeds or fails alone."""
        return self._thread.run(self._client.register_many(agents))

    def unregister_agent(self, agent_id: str) -> shapes.UnregisterResult | shapes.ErrorResponse:
        """Remove an agent. It is not sent twice: after a failure `outcome` tells whether it may have happened."""
        return self._thread.run(self._client.unregister_agent(agent_id))

    def drain(self, agent_id: str) -> shapes.DrainResult | shapes.ErrorResponse:
        """Take an agent out of service: it lives on, but is not discovered."""
        return self._thread.run(self._client.drain(agent_id))

    def undrain(self, agent_id: str) -> shapes.DrainResult | shapes.ErrorResponse:
        """Put an agent back into service."""
        return self._thread.run(self._client.undrain(agent_id))

    def drain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> shapes.DrainResults | shapes.ErrorResponse:
        """Take all agents out of service that match the label selector, the namespace or both."""
        return self._thread.run(self._client.drain_many(label_selector=label_selector, namespace=namespace))

    def undrain_many(
        self, *, label_selector: str | None = None, namespace: str | None = None
    ) -> shapes.DrainResults | shapes.ErrorResponse:
        """Put all agents back into service that match the label selector, the namespace or both."""
        return self._thread.run(self._client.undrain_many(label_selector=label_selector, namespace=namespace))

    def heartbeat(
        self,
        agent_id: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        dependencies_version: str | None = None,
        load: float | None = None,
    ) -> shapes.HeartbeatResult | shapes.ErrorResponse:
        """Tell that an agent is alive. `unknown_agent` means: register it again."""
        return self._thread.run(
            self._client.heartbeat(agent_id, metadata, dependencies_version=dependencies_version, load=load)
        )

    def heartbeats(self, agent_ids: Sequence[str]) -> shapes.HeartbeatResults | shapes.ErrorResponse:
        """Tell that up to 1,000 agents are alive."""
        return self._thread.run(self._client.heartbeats(agent_ids))

    def discover_services(self, query: Mapping[str, Any] | None = None) -> shapes.DiscoverResult | shapes.ErrorResponse:
        """Find agents by the query object of the tool: healthy ones unless its `status` says otherwise."""
        return self._thread.run(self._client.discover_services(query))

    def select_agent(
        self, capability: str, **options: Unpack[SelectOptions]
    ) -> shapes.SelectResult | shapes.ErrorResponse:
        """Choose one agent to call that has a capability. `no_provider` says why there is none."""
        return self._thread.run(self._client.select_agent(capability, **options))

    def agents(self, **filters: Unpack[AgentFilters]) -> shapes.AgentList | shapes.ErrorResponse:
        """List agents that match all filters; with `wait` and a `resource_version`, once the answer has changed."""
        return self._thread.run(self._client.agents(**filters))

    def agent(self, agent_id: str) -> shapes.Agent | shapes.ErrorResponse:
        """Show one agent."""
        return self._thread.run(self._client.agent(agent_id))

    def get_agent_status(self, agent_id: str) -> shapes.AgentStatusResponse | shapes.ErrorResponse:
        """Show one agent, as the tool does: under `agent`, beside a `status` of the call."""
        return self._thread.run(self._client.get_agent_status(agent_id))

    def agent_status(self, agent_id: str) -> shapes.AgentStatus | shapes.ErrorResponse:
        """Show an agent's status alone."""
        return self._thread.run(self._client.agent_status(agent_id))

    def agent_health(self, agent_id: str) -> reports.AgentHealth | shapes.ErrorResponse:
        """Show how an agent is, with its thresholds and the time since its last heartbeat."""
        return self._thread.run(self._client.agent_health(agent_id))

    def dependencies(self, agent_id: str, *, explain: bool = False) -> wiring.AgentDependencies | shapes.ErrorResponse:
        """Show what an agent's dependencies resolve to; to `explain` also whom the registry looked at, and lately."""
        return self._thread.run(self._client.dependencies(agent_id, explain=explain))

    def dependents(self, agent_id: str) -> wiring.AgentDependents | shapes.ErrorResponse:
        """Show whose dependencies an agent meets, and who breaks when it goes."""
        return self._thread.run(self._client.dependents(agent_id))

    def dependency_graph(self, *, namespace: str | None = None) -> wiring.DependencyGraph | shapes.ErrorResponse:
        """Show who depends on whom, what is unmet, and the cycles; of one namespace's agents or of all."""
        return self._thread.run(self._client.dependency_graph(namespace=namespace))

    def capabilities(self, **filters: Unpack[CapabilityFilters]) -> shapes.CapabilityList | shapes.ErrorResponse:
        """Search capabilities: one row for each capability of each agent."""
        return self._thread.run(self._client.capabilities(**filters))

    def health(self) -> reports.Health | shapes.ErrorResponse:
        """Show how the replica is that answers."""
        return self._thread.run(self._client.health())

    def ready(self) -> reports.Readiness | shapes.ErrorResponse:
        """Tell whether any replica takes requests."""
        return self._thread.run(self._client.ready())

    def end_self_preservation(self) -> reports.EndSelfPreservationResult | shapes.ErrorResponse:
        """End the hold of a mass silence, if one is on. It is not sent twice, for the next hold is another one."""
        return self._thread.run(self._client.end_self_preservation())

    def metrics(self) -> reports.Metrics | shapes.ErrorResponse:
        """Show the numbers of the mesh."""
        return self._thread.run(self._client.metrics())

    def metrics_text(self) -> str | shapes.ErrorResponse:
        """Show the numbers as Prometheus reads them."""
        return self._thread.run(self._client.metrics_text())

    def tools(self) -> reports.ToolList | shapes.ErrorResponse:
        """List the registry's MCP tools with their schemas."""
        return self._thread.run(self._client.tools())

    def openapi(self) -> dict[str, Any]:
        """Return the API as an OpenAPI document."""
        return self._thread.run(self._client.openapi())

    def describe(self) -> reports.ServiceDescription | shapes.ErrorResponse:
        """Tell what answers: its name, version and endpoints."""
        return self._thread.run(self._client.describe())

    def wait_for(self, capability: str, *, timeout: float = 30.0, **filters: Unpack[WaitFilters]) -> list[shapes.Agent]:
        """Return the living agents in service that have a capability, once there is one; even of a registry to come."""
        return self._thread.run(self._client.wait_for(capability, timeout=timeout, **filters))

    def watch(
        self,
        *,
        resource_version: str | int | None = None,
        send_initial: bool = False,
        bookmarks: bool = False,
        **filters: Unpack[WatchFilters],
    ) -> SyncWatch:
        """Follow the changes of agents that match all filters: `async with client.watch() as events`."""
        return SyncWatch(
            self._client.watch(
                resource_version=resource_version, send_initial=send_initial, bookmarks=bookmarks, **filters
            ),
            self._thread,
        )
