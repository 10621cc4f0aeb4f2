"""A dependency that is injected into a function: a callable that calls the tool of another agent."""

from concurrent.futures import Future
from typing import Any, Protocol

from mcp_mesh_client.errors import DependencyUnavailable, InvalidData
from mcp_mesh_client.types.dependencies import Provider


class ToolCaller(Protocol):
    """Calls tools of providers."""

    async def call(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> Any:
        """Call a tool on the running event loop."""

    def submit(self, provider: Provider, arguments: dict[str, Any], timeout: float) -> "Future[Any]":
        """Start a call of a tool on the event loop of another thread."""


class DependencyBinding:
    """One dependency of one function; its `provider` is None while it is unresolved."""

    def __init__(self, capability: str, spec: Any) -> None:
        self.capability = capability
        self.spec = spec
        self.provider: Provider | None = None


class Dependency:
    """The tool of another agent that provides a capability, called with keywords: `date_service(format="iso")`.

    In an async function the call must be awaited; otherwise it returns the result of the tool. The call goes to the
    current provider, which may have changed since the function started. Raises DependencyUnavailable,
    DependencyTimeout or DependencyFailed.
    """

    def __init__(self, binding: DependencyBinding, caller: ToolCaller, timeout: float, *, is_async: bool) -> None:
        self._binding = binding
        self._caller = caller
        self._timeout = timeout
        self._is_async = is_async

    def __repr__(self) -> str:
        provider = self._binding.provider
        if provider is None:
            return f"<{self._binding.capability}: unresolved>"
        return f"<{self._binding.capability}: {provider['tool_name']} on {provider['agent_id']}>"

    @property
    def provider(self) -> Provider | None:
        """The current provider: `agent_id`, `endpoint` and `tool_name`; None while no provider is resolved."""
        return self._binding.provider

    def with_timeout(self, seconds: float) -> "Dependency":
        """Return a copy of this dependency with another timeout for its calls."""
        if not seconds > 0:
            raise InvalidData("seconds", f"seconds: expected a number above 0, not {seconds!r}")
        return Dependency(self._binding, self._caller, seconds, is_async=self._is_async)

    def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool of the current provider."""
        if self._is_async:
            return self._call_async(arguments)
        future = self._caller.submit(self._require_provider(), arguments, self._timeout)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C cancels the call, too.
            future.cancel()
            raise

    async def _call_async(self, arguments: dict[str, Any]) -> Any:
        return await self._caller.call(self._require_provider(), arguments, self._timeout)

    def _require_provider(self) -> Provider:
        provider = self._binding.provider
        if provider is None:
            raise DependencyUnavailable(f"{self._binding.capability}: no provider is available")
        return provider
