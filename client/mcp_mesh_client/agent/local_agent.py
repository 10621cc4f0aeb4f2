"""The declared agent of this process: its functions, options, endpoint and resolved dependencies."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mcp_mesh_client.agent.agent_function import AgentFunction
from mcp_mesh_client.agent.dependency_caller import DependencyCaller
from mcp_mesh_client.agent.env import AgentEnvironment, mcp_url, new_agent_id, read_environment, script_name
from mcp_mesh_client.agent.injected_dependency import DependencyBinding
from mcp_mesh_client.agent.options import DURATION_OPTIONS, MAPPING_OPTIONS
from mcp_mesh_client.agent.registration_values import check_capabilities
from mcp_mesh_client.config import DEFAULT_SECURITY_CONTEXTS
from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.event_loop_thread import EventLoopThread
from mcp_mesh_client.keep_alive import DEFAULT_INTERVAL_S, default_thresholds
from mcp_mesh_client.load import LoadReader
from mcp_mesh_client.request_validation import check_registration
from mcp_mesh_client.retry import ConnectionState
from mcp_mesh_client.types.dependencies import Provider

_log = logging.getLogger("mcp_mesh_client")

_DEFAULT_NAMESPACE = "default"


class LocalAgent:
    """The agent of this process: its id, its declarations, its endpoint, and its resolved dependencies.

    It may be changed from any thread. Each change increments `revision` and calls `on_change`.
    """

    def __init__(self) -> None:
        self.environment: AgentEnvironment = read_environment()
        self.functions: dict[str, AgentFunction] = {}
        self.instances: dict[str, Any] = {}
        self.endpoint: str | None = self._environment_endpoint()
        self.registry_state: ConnectionState = "unknown"
        self.revision: int = 0
        self.changed_at: float = 0.0
        self.thread: EventLoopThread = EventLoopThread()
        self.caller: DependencyCaller = DependencyCaller(self.thread, self._consumer_facts, self._bindings)
        self.on_change: Callable[[], None] = lambda: None
        # The name of the MCP server, which is the name of the agent if neither the code nor the environment names it.
        self.server_name: str | None = None
        self._id: str | None = None
        self._id_suffix = ""
        self._options: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._load_reader = LoadReader()

    @property
    def id(self) -> str:
        """The id, which is decided when it is first read: `MCP_MESH_AGENT_ID`, or the name and a random number."""
        with self._lock:
            if self._id is None:
                given = self.environment.id
                self._id = new_agent_id(self.name) if given is None else f"{given}{self._id_suffix}"
            return self._id

    @property
    def name(self) -> str:
        """The name: from the code, the environment, the MCP server, or the script."""
        name: str | None = self._option("name")
        return name or self.server_name or script_name()

    @property
    def registry_url(self) -> str | None:
        """The URL of the registry from a declaration or the environment; None for the default of the client."""
        url: str | None = self._option("registry_url")
        return url

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two heartbeats."""
        return self._option("health_interval") or DEFAULT_INTERVAL_S

    def load(self) -> float | None:
        """Return the current load of the agent, if a declaration or the environment sets it."""
        return self._load_reader.read(self._option("load"), self.id)

    def set_options(self, **options: Any) -> None:
        """Merge the options of one declaration into the options of the agent.

        Raises InvalidData if another declaration has a different value. Of durations the shortest applies; mappings are
        merged.
        """
        with self._lock:
            merged = dict(self._options)
            for name, value in options.items():
                before = merged.get(name)
                if before is None or value == before:
                    merged[name] = value
                elif name in DURATION_OPTIONS:
                    merged[name] = min(value, before)
                elif name in MAPPING_OPTIONS:
                    for key in value.keys() & before.keys():
                        _check_equal(f"{name}[{key}]", before[key], value[key])
                    merged[name] = {**before, **value}
                else:
                    _check_equal(name, before, value)
            timeout, eviction = merged.get("timeout_threshold"), merged.get("eviction_threshold")
            if timeout is not None and eviction is not None and eviction <= timeout:
                raise InvalidData(
                    "eviction_threshold", f"eviction_threshold: expected more than timeout_threshold, {timeout:g}"
                )
            self._options = merged

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
                check_capabilities(getattr(instance, "capabilities", ()))
                metadata = {"endpoint": "http://checked", "tools": self._tools()}
                context = {"security_context": self._options.get("security_context")}
                check_registration({"id": "checked", "metadata": metadata} | context, DEFAULT_SECURITY_CONTEXTS)
            except InvalidData:
                self.instances[class_name], self.functions = before
                raise
        self._notify_change()

    def set_endpoint(self, endpoint: str) -> None:
        """Set the agent's URL for callers."""
        self.endpoint = mcp_url(endpoint)
        _log.info("agent_started id=%s endpoint=%s", self.id, self.endpoint)
        self._notify_change(immediately=True)

    def registration_document(self, endpoint: str | None = None) -> dict[str, Any]:
        """Return the registration of the agent with all its functions."""
        with self._lock:
            metadata = {"endpoint": endpoint or self.endpoint, "tools": self._tools()}
        return {
            "agent_id": self.id,
            "name": self.name,
            **self._registered_options(),
            "metadata": {**(self._option("metadata") or {}), **metadata},
        }

    def _tools(self) -> list[dict[str, Any]]:
        """Return the tools of all functions and objects."""
        tools = [tool for function in self.functions.values() for tool in function.tool_specs()]
        for instance in self.instances.values():
            tools = _merge_capabilities(tools, getattr(instance, "capabilities", ()))
        return tools

    def _registered_options(self) -> dict[str, Any]:
        """Return the options of the agent that are fields of its registration."""
        names = ("namespace", "security_context", "labels", "annotations")
        options = {name: value for name in names if (value := self._option(name)) is not None}
        if (zone := self._option("zone")) is not None:
            options["labels"] = {**options.get("labels", {}), "zone": zone}
        interval, timeout, eviction = default_thresholds(
            self.heartbeat_interval, self._options.get("timeout_threshold"), self._options.get("eviction_threshold")
        )
        return options | {"health_interval": interval, "timeout_threshold": timeout, "eviction_threshold": eviction}

    def _option(self, name: str) -> Any:
        """Return an option from the code or the environment."""
        return self.environment.choose(name, self._options.get(name))

    def update_dependencies(self, response: Mapping[str, Any]) -> None:
        """Apply the resolved dependencies in a response of the registry; a response without them changes nothing."""
        resolved: Mapping[str, Mapping[str, Provider | None]] | None = response.get("dependencies_resolved")
        if resolved is None:
            return
        for function in tuple(self.functions.values()):
            found = resolved.get(function.name, {})
            for binding in function.dependencies.values():
                provider = found.get(binding.capability)
                if provider != binding.resolved:
                    _log_resolution(function.name, binding.capability, provider)
                    binding.resolve(provider)

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

    def close(self) -> None:
        """End the thread of the agent and its sessions; sessions on other event loops end with these loops."""
        self.caller.close()
        self.thread.stop()

    def reset_after_fork(self) -> None:
        """Become a new agent after a fork: with a new id, and without the threads of the parent process."""
        self._lock = threading.RLock()
        self.thread = EventLoopThread()
        self.caller.reset_after_fork(self.thread)
        self._id, self._id_suffix = None, new_agent_id("")
        self.endpoint = self._environment_endpoint()
        self.registry_state = "unknown"

    def _environment_endpoint(self) -> str | None:
        endpoint = self.environment.endpoint
        return None if endpoint is None else mcp_url(endpoint)

    def _consumer_facts(self) -> tuple[str, str, str | None]:
        """Return the facts of this agent that the selection of a provider depends on."""
        options = self._registered_options()
        return self.id, options.get("namespace", _DEFAULT_NAMESPACE), options.get("labels", {}).get("zone")

    def _bindings(self) -> Iterator[DependencyBinding]:
        for function in tuple(self.functions.values()):
            yield from function.dependencies.values()

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


def _check_equal(name: str, before: object, value: object) -> None:
    if before != value:
        raise InvalidData(name, f"{name}: already set to {before!r}; a process is one agent")


def _log_resolution(function: str, capability: str, provider: Provider | None) -> None:
    if provider is None:
        _log.info("dependency_unresolved function=%s capability=%s", function, capability)
    else:
        _log.info(
            "dependency_resolved function=%s capability=%s provider=%s tool=%s endpoint=%s",
            function,
            capability,
            provider["agent_id"],
            provider["tool_name"],
            provider["endpoint"],
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
