"""The declared agent of this process: its functions, options, endpoint and resolved dependencies."""

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mcp_mesh_client.agent.agent_function import AgentFunction
from mcp_mesh_client.agent.env import AgentEnvironment, heartbeat_interval, new_agent_id, read_environment
from mcp_mesh_client.config import DEFAULT_SECURITY_CONTEXTS
from mcp_mesh_client.errors import ClientClosed, InvalidData, McpLibraryMissing
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.request_validation import check_registration
from mcp_mesh_client.retry import ConnectionState
from mcp_mesh_client.types.dependencies import Provider

if TYPE_CHECKING:
    from mcp_mesh_client.agent.provider_sessions import McpSessions

_log = logging.getLogger("mcp_mesh_client")

_PLACEHOLDER_ENDPOINT = "http://localhost"

# Options in seconds. If several declarations set one of them, the shortest value applies.
DURATION_OPTIONS = frozenset({"health_interval", "timeout_threshold", "eviction_threshold"})
_REGISTRATION_OPTIONS = ("name", "namespace", "security_context", "timeout_threshold", "eviction_threshold")


class LocalAgent:
    """The agent of this process: its id, its declarations, its endpoint, and its resolved dependencies.

    It may be changed from any thread. Each change increments `revision` and calls `on_change`.
    """

    def __init__(self) -> None:
        self.environment: AgentEnvironment = read_environment()
        self.id: str = new_agent_id(self.environment.name)
        self.functions: dict[str, AgentFunction] = {}
        self.instances: dict[str, Any] = {}
        self.endpoint: str | None = self.environment.endpoint
        self.registry_state: ConnectionState = "unknown"
        self.revision: int = 0
        self.changed_at: float = 0.0
        self.thread: EventLoopThread = EventLoopThread()
        self._options: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._sessions = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, "McpSessions"]()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def registry_url(self) -> str | None:
        """The URL of the registry from the environment or a declaration; None for the default of the client."""
        return self.environment.registry_url or self._options.get("registry_url")

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return heartbeat_interval(self._options.get("health_interval"), self.environment)

    def set_options(self, **options: Any) -> None:
        """Merge the options of one declaration into the options of the agent.

        Raises InvalidData if another declaration has a different value; of durations the shortest applies.
        """
        with self._lock:
            for name, value in options.items():
                before = self._options.get(name)
                if value is None or value == before:
                    continue
                if before is not None and name not in DURATION_OPTIONS:
                    raise InvalidData(name, f"{name}: already set to {before!r}; a process is one agent")
                self._options[name] = value if before is None else min(value, before)

    def add_function(self, function: AgentFunction) -> None:
        """Add a function to the agent. Raises InvalidData if another function has its name."""
        with self._lock:
            self._put_function(function)
        self._notify_change()

    def rename_function(self, function: AgentFunction, name: str) -> None:
        """Give a function the name that its tool has in a server."""
        with self._lock:
            if name == function.name or name in self.functions:
                return
            del self.functions[function.name]
            function.name = name
            self.functions[name] = function

    def add_instance(self, class_name: str, instance: Any, functions: Iterable[AgentFunction]) -> None:
        """Add an object with its capabilities and functions; it replaces an earlier object of its class."""
        with self._lock:
            before = self.instances.get(class_name), dict(self.functions)
            self.instances[class_name] = instance
            try:
                for function in functions:
                    self._put_function(function)
                # Check the security context before anything is sent.
                check_registration(self.registration_document(_PLACEHOLDER_ENDPOINT), DEFAULT_SECURITY_CONTEXTS)
            except InvalidData:
                self.instances[class_name], self.functions = before
                raise
        self._notify_change()

    def set_endpoint(self, endpoint: str) -> None:
        """Set the agent's URL for callers; the environment takes precedence."""
        self.endpoint = self.environment.endpoint or endpoint
        self._notify_change(immediately=True)

    def registration_document(self, endpoint: str | None = None) -> dict[str, Any]:
        """Return the registration of the agent with all its functions."""
        with self._lock:
            tools = [tool for function in self.functions.values() for tool in function.tool_specs()]
            for instance in self.instances.values():
                tools = _merge_capabilities(tools, getattr(instance, "capabilities", ()))
            options = {name: self._options.get(name) for name in _REGISTRATION_OPTIONS}
            options["namespace"] = self.environment.namespace or options["namespace"]
        return {
            "agent_id": self.id,
            **{name: value for name, value in options.items() if value is not None},
            "health_interval": self.heartbeat_interval,
            "metadata": {"endpoint": endpoint or self.endpoint, "tools": tools},
        }

    def update_dependencies(self, response: Mapping[str, Any]) -> None:
        """Apply the resolved dependencies in a response of the registry; a response without them changes nothing."""
        resolved: Mapping[str, Mapping[str, Provider | None]] | None = response.get("dependencies_resolved")
        if resolved is None:
            return
        for function in tuple(self.functions.values()):
            found = resolved.get(function.name, {})
            for binding in function.dependencies.values():
                provider = found.get(binding.capability)
                if provider != binding.provider:
                    _log_resolution(function.name, binding.capability, provider)
                    binding.provider = provider

    def health(self) -> dict[str, Any]:
        """Return the body of the response to `GET /health`."""
        functions = tuple(self.functions.values())
        return {
            "status": "healthy",
            "agent_id": self.id,
            "endpoint": self.endpoint,
            "registry": self.registry_state,
            "functions": {
                function.name: {name: binding.provider is not None for name, binding in function.dependencies.items()}
                for function in functions
            },
        }

    def submit(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> "Future[Any]":
        """Start a call of a provider's tool on the thread of the agent."""
        return self.thread.submit(self.call(provider, arguments, timeout))

    async def call(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Call a provider's tool on the running event loop, because switching threads would make the call slower."""
        sessions = self._sessions.get(asyncio.get_running_loop())
        return await (sessions or self._open_sessions()).call(provider, arguments, timeout)

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

    def close(self) -> None:
        """End the thread of the agent and its sessions; sessions on other event loops end with these loops."""
        with contextlib.suppress(ClientClosed):
            self.thread.run(self._close_sessions())
        self.thread.stop()

    def reset_after_fork(self) -> None:
        """Become a new agent after a fork: with a new id, and without the threads of the parent process."""
        self._lock = threading.RLock()
        self.thread = EventLoopThread()
        self._sessions.clear()
        self.id = new_agent_id(self.environment.name)
        self.endpoint = self.environment.endpoint
        self.registry_state = "unknown"

    def _put_function(self, function: AgentFunction) -> None:
        before = self.functions.get(function.name)
        if before is not None and before.qualified_name != function.qualified_name:
            raise InvalidData(
                "function_name",
                f"function_name: {function.name} is declared by {before.qualified_name} "
                f"and by {function.qualified_name}; function names must be unique within a process",
            )
        self.functions[function.name] = function

    def _notify_change(self, *, immediately: bool = False) -> None:
        with self._lock:
            self.revision += 1
            self.changed_at = 0.0 if immediately else time.monotonic()
        self.on_change()


def _log_resolution(function: str, capability: str, provider: Provider | None) -> None:
    if provider is None:
        _log.info("dependency_unresolved function=%s capability=%s", function, capability)
    else:
        _log.info("dependency_resolved function=%s capability=%s provider=%s", function, capability, provider)


def mcp_missing_error() -> McpLibraryMissing:
    """Return the error to raise if the MCP SDK is not installed."""
    return McpLibraryMissing(
        "Serving and calling tools requires the MCP SDK; install the extra `agent` of mcp-mesh-client, "
        "from a checkout with: pip install './client[agent]'"
    )


def _merge_capabilities(tools: list[dict[str, Any]], capabilities: Iterable[Any]) -> list[dict[str, Any]]:
    """Add an object's capabilities to the functions of these names; a capability without a function becomes a tool."""
    added = list(tools)
    for given in capabilities:
        spec = dict(given) if isinstance(given, Mapping) else {"name": given}
        name = spec.pop("name", None)
        for at, tool in enumerate(added):
            if tool["capability"] == name:
                added[at] = tool | spec
                break
        else:
            added.append({"function_name": name, "capability": name} | spec)
    return added
