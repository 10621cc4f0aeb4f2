"""The loop that registers the agent, sends its heartbeats, and deregisters the agent at the end."""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable

from mcp_mesh_client.agent.deregister import deregister
from mcp_mesh_client.agent.local_agent import LocalAgent
from mcp_mesh_client.client import RegistryClient
from mcp_mesh_client.config import MAX_BACKOFF_S
from mcp_mesh_client.errors import ClientError, InvalidResponse, RegistryTimeout, RegistryUnavailable
from mcp_mesh_client.retry import Backoff
from mcp_mesh_client.types.agents import ErrorResponse, HeartbeatResult, RegisterResult

_log = logging.getLogger("mcp_mesh_client")

# The debounce collects the declarations of a program in one registration. The stop timeout limits the wait for a call
# in progress when the process ends.
DEBOUNCE_S = 0.3
_FIRST_PAUSE_S = 1.0
_STOP_TIMEOUT_S = 1.0


class AgentLifecycle:
    """Registers an agent and sends heartbeats from `start` to `stop`, on the thread of the agent.

    While the agent has no endpoint, `ensure_endpoint` is called. If it sets no endpoint, it returns the seconds until
    the next call, or None to wait for a change.
    """

    def __init__(self, agent: LocalAgent, ensure_endpoint: Callable[[], Awaitable[float | None]]) -> None:
        self._agent = agent
        self._ensure_endpoint = ensure_endpoint
        self._lock = threading.Lock()
        self._active_run: _LifecycleRun | None = None
        self._registered_revision: int | None = None
        self._may_be_registered = False
        self._dependencies_version: str | None = None
        self._last_rejection: str | None = None
        self._backoff = Backoff(_FIRST_PAUSE_S, MAX_BACKOFF_S)

    def start(self) -> None:
        """Start the registration loop, or wake the loop if it already runs."""
        with self._lock:
            if self._active_run is None:
                self._active_run = _LifecycleRun()
                self._agent.thread.submit(self._run(self._active_run))
            else:
                self._active_run.wake()

    def stop(self) -> None:
        """Deregister the agent and end the loop; wait up to a second for a call in progress. Needs no event loop."""
        with self._lock:
            run, self._active_run = self._active_run, None
        if run is None:
            return
        run.wake()
        run.ended.wait(_STOP_TIMEOUT_S)
        if self._may_be_registered:
            self._may_be_registered, self._registered_revision, self._dependencies_version = False, None, None
            deregister(self._agent.registry_url, self._agent.id)

    async def _run(self, run: "_LifecycleRun") -> None:
        run.bind_loop()
        try:
            while self._active_run is run:
                url = self._agent.registry_url
                try:
                    async with RegistryClient(url) as registry:
                        self._agent.caller.registry = registry
                        while self._active_run is run and url == self._agent.registry_url:
                            await run.wait(await self._step(registry))
                except Exception as error:  # noqa: BLE001 - logged with its traceback below
                    # No caller awaits this loop, so it must log its errors and continue.
                    _log.exception("agent_lifecycle_failed id=%s", self._agent.id)
                    await run.wait(self._back_off(str(error)))
        finally:
            if self._active_run in (run, None):
                self._agent.caller.registry = None
            run.ended.set()

    async def _step(self, registry: RegistryClient) -> float | None:
        """Wait, start a server, register or send a heartbeat; return the seconds until the next step, or None."""
        if (remaining := self._debounce_remaining()) > 0:
            return remaining
        if (endpoint := self._agent.endpoint) is None:
            delay = await self._ensure_endpoint()
            if (endpoint := self._agent.endpoint) is None:
                return delay
        return await self._register_or_heartbeat(registry, endpoint)

    def _debounce_remaining(self) -> float:
        """Return the seconds until no more declarations are expected."""
        return self._agent.changed_at + DEBOUNCE_S - time.monotonic()

    async def _register_or_heartbeat(self, registry: RegistryClient, endpoint: str) -> float:
        """Register the agent if it changed, otherwise send a heartbeat; return the seconds until the next request."""
        agent, revision, was_sent = self._agent, self._agent.revision, self._may_be_registered
        try:
            response: HeartbeatResult | RegisterResult | ErrorResponse
            if self._registered_revision == revision:
                response = await registry.heartbeat(
                    agent.id, dependencies_version=self._dependencies_version, load=agent.load()
                )
            else:
                self._may_be_registered = True
                response = await registry.register_agent(agent.registration_document(endpoint))
        except (RegistryUnavailable, RegistryTimeout) as error:
            self._may_be_registered = was_sent or error.outcome != "not_sent"
            # The client logs an unreachable registry; the resolved dependencies stay.
            return self._back_off(str(error)) if isinstance(error, InvalidResponse) else self._backoff.next_pause()
        except ClientError as error:
            return self._back_off(str(error))
        finally:
            agent.registry_state = registry.state
        if "error" in response:
            if response["error"] == "unknown_agent" and self._registered_revision is not None:
                self._registered_revision = self._dependencies_version = None
                return 0.0
            # An agent that was never registered needs no deregistration.
            self._may_be_registered = was_sent
            return self._back_off(response["message"])
        self._backoff.reset()
        is_new = self._registered_revision != revision
        if is_new:
            _log.info("agent_registered id=%s endpoint=%s", agent.id, endpoint)
        self._registered_revision, self._last_rejection = revision, None
        self._dependencies_version = response.get("dependencies_version", self._dependencies_version)
        agent.update_dependencies(response)
        if is_new and agent.load() is not None:
            # Only a heartbeat contains the load.
            return 0.0
        return agent.heartbeat_interval * random.uniform(0.9, 1.0)  # noqa: S311 - not for security

    def _back_off(self, reason: str) -> float:
        """Log a rejected request once; return the seconds until the next attempt."""
        if reason != self._last_rejection:
            _log.error("agent_rejected id=%s reason=%s", self._agent.id, reason)
            self._last_rejection = reason
        return self._backoff.next_pause()


class _LifecycleRun:
    """One run of the registration loop; any thread and signal handler can wake it, because that takes no lock."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind_loop(self) -> None:
        """Store the running event loop, on which this run waits."""
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """End the wait in progress or, if there is none, the next wait."""
        # Before bind_loop() no wait has started; after the loop has stopped there is no wait to end.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, seconds: float | None) -> None:
        """Wait for some seconds (None: without a limit) or until `wake` is called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
