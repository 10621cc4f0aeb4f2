"""A dependency as a function gets it: something to call, which is the tool of another agent."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from registry.client.errors import DependencyUnavailable, InvalidData
from registry.client.wiring import Provider

Call = Callable[[Provider, dict[str, Any], float], "Future[Any]"]
"""What begins a call: whom, with which arguments, and how many seconds it may take."""


class Link:
    """What one dependency of one function is resolved to at the moment; None while nobody provides it."""

    def __init__(self, capability: str, spec: Any) -> None:
        self.capability = capability
        self.spec = spec
        self.provider: Provider | None = None


class Dependency:
    """The tool of whoever provides a capability, called by keyword arguments: `date_service(format="iso")`.

    In a function that is not async the call returns the tool's result; in one that is, it is to be awaited. It goes to
    the provider of the moment, whoever that was when the function began. Raises DependencyUnavailable,
    DependencyTimeout or DependencyFailed.
    """

    def __init__(self, link: Link, call: Call, timeout: float, *, awaited: bool) -> None:
        self._link = link
        self._call = call
        self._timeout = timeout
        self._awaited = awaited

    def __repr__(self) -> str:
        provider = self._link.provider
        if provider is None:
            return f"<{self._link.capability}: nobody>"
        return f"<{self._link.capability}: {provider['tool_name']} of {provider['agent_id']}>"

    @property
    def provider(self) -> Provider | None:
        """Who provides it at the moment: `agent_id`, `endpoint` and `tool_name`; None for nobody."""
        return self._link.provider

    def within(self, seconds: float) -> "Dependency":
        """Return the same dependency with another time that a call may take."""
        if not seconds > 0:
            raise InvalidData("seconds", f"seconds: expected a number above 0, not {seconds!r}")
        return Dependency(self._link, self._call, seconds, awaited=self._awaited)

    def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool."""
        if self._awaited:
            return self._wait(arguments)
        begun = self._begin(arguments)
        try:
            return begun.result()
        except BaseException:
            # Ctrl-C ends the call as well.
            begun.cancel()
            raise

    async def _wait(self, arguments: dict[str, Any]) -> Any:
        return await asyncio.wrap_future(self._begin(arguments))

    def _begin(self, arguments: dict[str, Any]) -> "Future[Any]":
        provider = self._link.provider
        if provider is None:
            raise DependencyUnavailable(f"{self._link.capability}: nobody provides it any more")
        return self._call(provider, arguments, self._timeout)
