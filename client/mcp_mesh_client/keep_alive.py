"""Keeps an agent registered: it registers, sends heartbeats, and registers again if the registry lost the agent."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from mcp_mesh_client.durations import check_duration
from mcp_mesh_client.errors import ClientError, RegistryTimeout, RegistryUnavailable, RequestRejected
from mcp_mesh_client.load import Load, LoadReader, check_load
from mcp_mesh_client.retry import Backoff

_log = logging.getLogger("mcp_mesh_client")

DEFAULT_INTERVAL_S = 5.0
_TIMEOUT_INTERVALS = 3
_THRESHOLDS = ("health_interval", "timeout_threshold", "eviction_threshold")
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0


class KeepAliveCalls(Protocol):
    """The calls of a client that keep an agent registered."""

    def register_agent(self, registration_data: Mapping[str, Any]) -> Awaitable[Mapping[str, Any]]:
        """Register an agent."""

    def heartbeat(self, agent_id: str, *, load: float | None) -> Awaitable[Mapping[str, Any]]:
        """Send a heartbeat."""

    def unregister_agent(self, agent_id: str) -> Awaitable[Mapping[str, Any]]:
        """Remove an agent."""


class KeepAlive:
    """An agent that stays registered until this object is closed; `async with` waits for the first registration.

    `agent_id` is the id of the agent. While the registry is unreachable, it tries again by itself. `close` removes the
    agent.
    """

    def __init__(self, calls: KeepAliveCalls, registration: Mapping[str, Any], load: Load) -> None:
        self.agent_id: str = str(registration.get("id") or registration.get("agent_id"))
        self._calls = calls
        self._registration = with_default_thresholds(registration)
        self._interval: float = self._registration["health_interval"]
        if load is not None:
            check_load(load)
        self._load, self._load_reader = load, LoadReader()
        self._backoff = Backoff(_FIRST_PAUSE_S, _MAX_PAUSE_S)
        self._is_registered = False
        self._was_registered = asyncio.Event()
        self._last_rejection: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Wait until the agent is registered. Raises RequestRejected if the registry rejects the registration."""
        self._task = asyncio.create_task(self._run(), name="mcp-mesh-keep-alive")
        registered = asyncio.create_task(self._was_registered.wait())
        try:
            await asyncio.wait({self._task, registered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the heartbeats, and remove the agent if the registry can be reached."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if self._is_registered:
            self._is_registered = False
            with contextlib.suppress(ClientError):
                await self._calls.unregister_agent(self.agent_id)

    async def _run(self) -> None:
        while True:
            pause = await self._step()
            await asyncio.sleep(pause)

    async def _step(self) -> float:
        """Register the agent or send a heartbeat; return the seconds until the next step."""
        try:
            if self._is_registered:
                load = self._load_reader.read(self._load, self.agent_id)
                response = await self._calls.heartbeat(self.agent_id, load=load)
            else:
                response = await self._calls.register_agent(self._registration)
        except (RegistryUnavailable, RegistryTimeout):
            # The client logs it.
            return self._backoff.next_pause()
        except RequestRejected as error:
            response = error.response
        if "error" in response:
            return self._handle_rejection(response)
        self._backoff.reset()
        self._last_rejection = None
        if self._is_registered:
            return self._interval * random.uniform(0.9, 1.0)  # noqa: S311 - not for security
        self._is_registered = True
        self._was_registered.set()
        # Only the first registration is conditional.
        self._registration.pop("resource_version", None)
        _log.info("agent_registered id=%s", self.agent_id)
        return 0.0

    def _handle_rejection(self, response: Mapping[str, Any]) -> float:
        if self._is_registered and response["error"] == "unknown_agent":
            self._is_registered = False
            return 0.0
        message = str(response["message"])
        if not self._was_registered.is_set():
            raise RequestRejected(message, response)
        if message != self._last_rejection:
            _log.error("agent_rejected id=%s reason=%s", self.agent_id, message)
            self._last_rejection = message
        return self._backoff.next_pause()


def with_default_thresholds(registration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a registration with its heartbeat interval and its thresholds in seconds, or their defaults.

    Raises InvalidData.
    """
    values = default_thresholds(*(registration.get(name) for name in _THRESHOLDS))
    return {**registration, **dict(zip(_THRESHOLDS, values, strict=True))}


def default_thresholds(
    interval: float | str | None, timeout: float | str | None, eviction: float | str | None
) -> tuple[float, float, float]:
    """Return the seconds between heartbeats, until an agent is degraded, and until it is expired.

    By default 5 s, three intervals, and twice the timeout. Raises InvalidData.
    """
    interval_s = DEFAULT_INTERVAL_S if interval is None else check_duration(interval, "health_interval")
    eviction_s = None if eviction is None else check_duration(eviction, "eviction_threshold")
    if timeout is not None:
        timeout_s = check_duration(timeout, "timeout_threshold")
    elif eviction_s is None:
        timeout_s = _TIMEOUT_INTERVALS * interval_s
    else:
        timeout_s = min(_TIMEOUT_INTERVALS * interval_s, eviction_s / 2)
    return interval_s, round(timeout_s, 3), round(2 * timeout_s if eviction_s is None else eviction_s, 3)
