"""Everything that can go wrong for a client, as one tree.

    ClientError
    ├── InvalidData             ValueError       what was to be sent is wrong; names the field; nothing was sent
    │   └── SecurityValidationError               ... does not fit its security context
    ├── RegistryUnavailable     ConnectionError  no replica could be reached, or none could do it now
    │   └── InvalidResponse     ConnectionError  what answers there is no registry
    ├── RegistryTimeout         TimeoutError     no answer in time
    ├── CapabilityTimeout       TimeoutError     `wait_for` ended before a living agent had the capability
    ├── RequestRejected                          the registry said no to `watch` or `wait_for`; `response` says why
    │   └── WatchExpired                         a watch cannot go on from the version it was given: list again
    ├── ClientClosed            RuntimeError     the client was closed before the call, or before its answer came
    ├── DependencyUnavailable   ConnectionError  the provider of a dependency is gone, or nobody provides it any more
    ├── DependencyTimeout       TimeoutError     the provider of a dependency did not answer in time
    ├── DependencyFailed        RuntimeError     the provider answered that it failed; the message is its own
    ├── DecoratorOrderError     TypeError        `@mesh_agent` stands above `@server.tool()` instead of below it
    └── McpLibraryMissing       ImportError      install the extra `mcp`

Everywhere else what the registry refuses is no exception: the call returns the answer, `{"status": "error", ...}`.
"""

from collections.abc import Mapping
from typing import Any, Literal

Outcome = Literal["not_sent", "unknown"]


class ClientError(Exception):
    """Root of the tree."""


class InvalidData(ClientError, ValueError):
    """What was to be sent is wrong. `field` is its path, such as `capabilities[3].name`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SecurityValidationError(InvalidData):
    """The registration does not have what its security context requires, or the context cannot be one."""


class _RequestFailed(ClientError):
    """No answer, or none to go by.

    `outcome` tells whether the registry may have carried the call out: `not_sent` (it did not) or `unknown`. `response`
    is the body where a replica said that it cannot do it now, `retry_after` the seconds it asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome = "not_sent",
        response: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.response = response
        self.retry_after = retry_after


class RegistryUnavailable(_RequestFailed, ConnectionError):
    """No replica could be reached, or none could do it now."""


class InvalidResponse(RegistryUnavailable):
    """What came back is no answer of a registry: another program listens there, or something in between speaks."""


class RegistryTimeout(_RequestFailed, TimeoutError):
    """No answer came in time."""


class CapabilityTimeout(ClientError, TimeoutError):
    """No living agent had the capability in time."""


class RequestRejected(ClientError):
    """The registry said no, and there is no answer to return. `response` is its error body."""

    def __init__(self, message: str, response: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.response = response


class WatchExpired(RequestRejected):
    """The registry no longer knows what came after the version this watch was to go on from: list again."""


class ClientClosed(ClientError, RuntimeError):
    """The client was closed before the call, or before its answer came: then the call may have been carried out."""


class DependencyUnavailable(ClientError, ConnectionError):
    """The provider of a dependency cannot be reached, or went while it was called, or there is none any more."""


class DependencyTimeout(ClientError, TimeoutError):
    """The provider of a dependency did not answer in time; whether it did what was asked is not known."""


class DependencyFailed(ClientError, RuntimeError):
    """The provider of a dependency answered that it failed, or that it does not know the tool."""


class DecoratorOrderError(ClientError, TypeError):
    """`@mesh_agent` stands above `@server.tool()`, so that the server knows a function which gets no dependencies."""


class McpLibraryMissing(ClientError, ImportError):
    """The MCP SDK is not installed; the message says how to install it."""
