"""Calls of dependencies: the MCP sessions of each event loop, and the failover to another provider."""

import asyncio
import contextlib
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.agent.injected_dependency import DependencyBinding
from mcp_mesh_client.agent.suspect_providers import SuspectProviders, Suspicion
from mcp_mesh_client.client import RegistryClient
from mcp_mesh_client.errors import ClientClosed, ClientError, DependencyUnavailable, McpLibraryMissing
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.filters import SelectOptions
from mcp_mesh_client.types.dependencies import Provider

if TYPE_CHECKING:
    from mcp_mesh_client.agent.provider_sessions import McpSessions

_log = logging.getLogger("mcp_mesh_client")

_SELECT_TIMEOUT_S, _CHECK_INTERVAL_S, _CONNECT_TIMEOUT_S = 2.0, 1.0, 2.0

ConsumerFacts = Callable[[], tuple[str, str, str | None]]
"""Returns the id, the namespace and the zone of the agent."""


class DependencyCaller:
    """Calls the tools of providers on any event loop.

    A provider that cannot be reached is suspect: calls go to another provider that the registry selects. The suspicion
    ends with the provider's next heartbeat, or after 10 s if a connection to it succeeds.
    """

    def __init__(
        self, thread: EventLoopThread, consumer: ConsumerFacts, bindings: Callable[[], Iterable[DependencyBinding]]
    ) -> None:
        self.suspects: SuspectProviders = SuspectProviders()
        # Set while the agent is registered; it belongs to the event loop of the thread.
        self.registry: RegistryClient | None = None
        # Sends a heartbeat of the agent now, whose response contains the current providers.
        self.send_heartbeat: Callable[[], None] = lambda: None
        self._thread = thread
        self._consumer = consumer
        self._bindings = bindings
        self._lock = threading.Lock()
        self._is_watching = False
        self._sessions = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, "McpSessions"]()

    def submit(self, binding: DependencyBinding, arguments: dict[str, Any], timeout: float) -> "Future[Any]":
        """Start a call of a dependency's tool on the thread of the agent."""
        return self._thread.submit(self.call(binding, arguments, timeout))

    async def call(self, binding: DependencyBinding, arguments: dict[str, Any], timeout: float) -> Any:
        """Call a dependency's tool on the running event loop, because switching threads would make the call slower.

        The call is repeated once, at another provider if there is one, if a repetition is harmless.
        """
        deadline = time.monotonic() + timeout
        provider = binding.require_provider()
        try:
            return await self._sessions_of_loop().call(binding.capability, provider, arguments, timeout)
        except DependencyUnavailable as error:
            if not error.repeatable:
                raise
            failure = error
        if failure.outcome == "not_sent":
            self._suspect(provider, failure)
        other = await self._find_other(binding, provider)
        if other is None and failure.outcome == "not_sent":
            raise DependencyUnavailable(f"{failure}; no other provider is available") from failure
        try:
            remaining = max(0.0, deadline - time.monotonic())
            return await self._sessions_of_loop().call(binding.capability, other or provider, arguments, remaining)
        except DependencyUnavailable as error:
            if error.outcome == "not_sent":
                self._suspect(other or provider, error)
            raise

    def close(self) -> None:
        """Close the sessions on the thread of the agent; sessions on other event loops end with these loops."""
        with contextlib.suppress(ClientClosed):
            self._thread.run(self._close_sessions())

    def reset_after_fork(self, thread: EventLoopThread) -> None:
        """Forget the sessions and the suspicions of the parent process."""
        self._thread, self.registry = thread, None
        self._lock, self._is_watching = threading.Lock(), False
        self._sessions.clear()
        self.suspects.clear()

    def _sessions_of_loop(self) -> "McpSessions":
        sessions = self._sessions.get(asyncio.get_running_loop())
        return self._open_sessions() if sessions is None else sessions

    def _open_sessions(self) -> "McpSessions":
        try:
            from mcp_mesh_client.agent.provider_sessions import McpSessions  # noqa: PLC0415 - imports the MCP SDK
        except ImportError as error:
            raise mcp_missing_error() from error
        with self._lock:
            for loop in tuple(self._sessions):
                if loop.is_closed():
                    # It was closed before its sessions.
                    self._sessions.pop(loop, None)
            sessions = self._sessions[asyncio.get_running_loop()] = McpSessions()
        return sessions

    async def _close_sessions(self) -> None:
        """Close the MCP sessions of the running event loop."""
        if (sessions := self._sessions.pop(asyncio.get_running_loop(), None)) is not None:
            await sessions.close()

    def _suspect(self, provider: Provider, error: DependencyUnavailable) -> None:
        """Avoid a provider for some seconds, and watch for its return."""
        if self.suspects.add(provider):
            _log.warning("provider_suspect id=%s error=%s", provider["agent_id"], error)
        with self._lock:
            if self.registry is None or self._is_watching:
                return
            self._is_watching = True
        with contextlib.suppress(ClientClosed):
            self._thread.submit(self._watch_suspects())

    async def _find_other(self, binding: DependencyBinding, failed: Provider) -> Provider | None:
        """Return another provider for a dependency, None if there is none."""
        current = binding.provider
        if current is not None and current != failed:
            # Another call has found it, or the registry has resolved it.
            return current
        try:
            async with asyncio.timeout(_SELECT_TIMEOUT_S):
                other = await asyncio.wrap_future(self._thread.submit(self._select(binding, failed)))
        except (TimeoutError, ClientClosed):
            return None
        if other is not None and failed in self.suspects:
            binding.replacement = other
        return other

    async def _select(self, binding: DependencyBinding, failed: Provider) -> Provider | None:
        """Let the registry select a provider with the same needs that is not suspect."""
        if (registry := self.registry) is None:
            return None
        excluded = {failed["agent_id"], *(each.provider["agent_id"] for each in self.suspects.active())}
        options = select_options(binding.spec, *self._consumer())
        options["exclude"] = sorted(excluded)
        try:
            found = await registry.select_agent(binding.capability, **options)
        except ClientError as error:
            _log.debug("provider_selection_failed capability=%s error=%s", binding.capability, error)
            return None
        if "error" in found:
            return None
        return {"agent_id": found["agent_id"], "endpoint": found["endpoint"], "tool_name": found["tool_name"]}

    async def _watch_suspects(self) -> None:
        """Check the suspect providers each second, and look for other ones, while there are any."""
        while True:
            suspicions = self.suspects.active()
            with self._lock:
                registry = self.registry
                if registry is None or not suspicions:
                    self._is_watching = False
                    return
            try:
                await self._check_all(suspicions, registry)
            except Exception:  # noqa: BLE001 - an error of one check must not end the others
                _log.exception("suspect_check_failed")
            await asyncio.sleep(_CHECK_INTERVAL_S * random.uniform(0.75, 1.25))  # noqa: S311 - not for security

    async def _check_all(self, suspicions: Sequence[Suspicion], registry: RegistryClient) -> None:
        """Check suspect providers, and look for other providers of the dependencies that have none."""
        for suspicion in suspicions:
            await self._check(suspicion, registry)
        for binding in tuple(self._bindings()):
            resolved = binding.resolved
            if resolved is not None and binding.provider is None:
                binding.replacement = await self._select(binding, resolved)

    async def _check(self, suspicion: Suspicion, registry: RegistryClient) -> None:
        """End a suspicion soon after a heartbeat; at its end, extend it if the provider still cannot be reached."""
        provider = suspicion.provider
        with contextlib.suppress(ClientError):
            status = await registry.agent_status(provider["agent_id"])
            heartbeat = None if "error" in status else status["last_heartbeat"]
            if suspicion.is_checked and heartbeat not in (None, suspicion.last_heartbeat):
                # It may have registered another endpoint, which the response to a heartbeat contains.
                self.send_heartbeat()
                suspicion.extend(_CHECK_INTERVAL_S)
                return
            suspicion.is_checked, suspicion.last_heartbeat = True, heartbeat
        is_in_use = any(provider in (binding.resolved, binding.replacement) for binding in self._bindings())
        if suspicion.remaining > 2 * _CHECK_INTERVAL_S or not is_in_use:
            return
        if not await self._sessions_of_loop().can_connect(provider, _CONNECT_TIMEOUT_S):
            suspicion.extend()


def select_options(spec: str | Mapping[str, Any], agent_id: str, namespace: str, zone: str | None) -> SelectOptions:
    """Return the options of a selection with the same needs as a dependency of this agent."""
    needs: Mapping[str, Any] = {} if isinstance(spec, str) else spec
    options: SelectOptions = {"namespace": needs.get("namespace") or namespace, "key": needs.get("key") or agent_id}
    if version := needs.get("version"):
        options["version_constraint"] = version
    if tags := needs.get("tags"):
        options["tags"] = tags
    strategy = needs.get("strategy")
    if strategy is not None and (strategy != "local" or zone is not None):
        options["strategy"] = strategy
    if zone is not None:
        options["zone"] = zone
    return options


def mcp_missing_error() -> McpLibraryMissing:
    """Return the error to raise if the MCP SDK is not installed."""
    return McpLibraryMissing(
        "Serving and calling tools requires the MCP SDK; install the extra `agent` of mcp-mesh-client, "
        "from a checkout with: pip install './client[agent]'"
    )
