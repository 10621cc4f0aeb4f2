"""A dependency that is injected into a function: a callable that calls the tool of another agent."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from mcp_mesh_client.agent.suspect_providers import SuspectProviders
from mcp_mesh_client.durations import check_duration
from mcp_mesh_client.errors import DependencyUnavailable
from mcp_mesh_client.types.dependencies import Provider


class DependencyBinding:
    """One dependency of one function.

    `resolved` is the provider that the registry resolved. `replacement` is called instead while `resolved` is suspect.
    """

    def __init__(self, capability: str, spec: str | Mapping[str, Any], suspects: SuspectProviders) -> None:
        self.capability = capability
        self.spec = spec
        self.resolved: Provider | None = None
        self.replacement: Provider | None = None
        self._suspects = suspects

    @property
    def provider(self) -> Provider | None:
        """The provider to call; None if there is none that can be reached."""
        resolved = self.resolved
        if resolved is None or resolved not in self._suspects:
            return resolved
        replacement = self.replacement
        return None if replacement is None or replacement in self._suspects else replacement

    def resolve(self, provider: Provider | None) -> None:
        """Set the provider that the registry resolved."""
        self.resolved, self.replacement = provider, None

    def require_provider(self) -> Provider:
        """Return the provider to call. Raises DependencyUnavailable if there is none."""
        if (provider := self.provider) is not None:
            return provider
        if (resolved := self.resolved) is None:
            raise DependencyUnavailable(f"{self.capability}: no provider is available")
        raise DependencyUnavailable(
            f"{self.capability}: {resolved['agent_id']} at {resolved['endpoint']} could not be reached a moment ago, "
            "and no other provider is available"
        )


class ToolCaller(Protocol):
    """Calls tools of providers."""

    @property
    def suspects(self) -> SuspectProviders:
        """The providers that could not be reached."""

    async def call(self, binding: DependencyBinding, arguments: dict[str, Any], timeout: float) -> Any:
        """Call the tool of a dependency on the running event loop."""

    def submit(self, binding: DependencyBinding, arguments: dict[str, Any], timeout: float) -> "Future[Any]":
        """Start a call of the tool of a dependency on the event loop of another thread."""


class Dependency:
    """The tool of another agent that provides a capability, called with keywords: `date_service(format="iso")`.

    In an async function the call must be awaited; otherwise it returns the result of the tool. The call goes to the
    current provider, which may have changed since the function started; if that one cannot be reached, it goes to
    another provider. Raises DependencyUnavailable, DependencyTimeout or DependencyFailed.
    """

    def __init__(self, binding: DependencyBinding, caller: ToolCaller, timeout: float, *, is_async: bool) -> None:
        self._binding = binding
        self._caller = caller
        self._timeout = timeout
        self._is_async = is_async

    def __repr__(self) -> str:
        provider = self.provider
        if provider is None:
            return f"<{self._binding.capability}: unresolved>"
        return f"<{self._binding.capability}: {provider['tool_name']} on {provider['agent_id']}>"

    @property
    def provider(self) -> Provider | None:
        """The current provider: `agent_id`, `endpoint` and `tool_name`; None while there is none."""
        return self._binding.provider

    def with_timeout(self, seconds: float | str) -> "Dependency":
        """Return a copy of this dependency with another timeout for its calls, in seconds or with a unit."""
        timeout = check_duration(seconds, "seconds")
        return Dependency(self._binding, self._caller, timeout, is_async=self._is_async)

    def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool of the current provider."""
        if self._is_async:
            return self._caller.call(self._binding, arguments, self._timeout)
        future = self._caller.submit(self._binding, arguments, self._timeout)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C cancels the call, too.
            future.cancel()
            raise
