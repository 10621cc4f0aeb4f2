"""The errors of the client, as one tree.

    ClientError
    ├── InvalidData             ValueError       data that cannot be sent; `field` names it; nothing was sent
    │   └── SecurityValidationError               a registration does not satisfy its security context
    ├── RegistryUnavailable     ConnectionError  no replica could be reached, or none could handle the call
    │   └── InvalidResponse     ConnectionError  the response does not come from a registry
    ├── RegistryTimeout         TimeoutError     no response in time
    ├── CapabilityTimeout       TimeoutError     no agent provided the capability within the time of `wait_for`
    ├── RequestRejected                          the registry rejected the request; see `code` and `details`
    │   └── WatchExpired                         a watch cannot resume from its version: list again
    ├── ClientClosed            RuntimeError     the client was closed before the call, or before its response
    ├── DependencyUnavailable   ConnectionError  the provider of a dependency is unreachable, or there is none
    ├── DependencyTimeout       TimeoutError     the provider of a dependency did not respond in time
    ├── DependencyFailed        RuntimeError     the provider returned an error, which is the message
    ├── DecoratorOrderError     TypeError        `@mesh_agent` is above `@server.tool()` instead of below it
    └── McpLibraryMissing       ImportError      install the extra `agent`

`watch`, `wait_for` and `keep_alive` raise RequestRejected, and with `raise_on_error` all calls do. Without it, a
rejected call returns the error response, `{"status": "error", ...}`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Outcome = Literal["not_sent", "unknown"]


class ClientError(Exception):
    """The base class of all errors of the client."""


class InvalidData(ClientError, ValueError):
    """Invalid data, which was not sent. `field` is the path of the value, such as `capabilities[3].name`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SecurityValidationError(InvalidData):
    """The registration does not satisfy its security context, or the context is invalid."""


class _RequestFailed(ClientError):
    """A call failed: there was no response, or the response cannot be used.

    `outcome` shows whether the registry may have applied the call: `not_sent` (it did not) or `unknown`. If a
    replica responded that it cannot handle the call now, `response` is its body, and `retry_after` its Retry-After
    header in seconds.
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
    """No replica could be reached, or no replica could handle the call."""


class InvalidResponse(RegistryUnavailable):
    """The response does not come from a registry: another program listens at this URL, or a proxy responded."""


class RegistryTimeout(_RequestFailed, TimeoutError):
    """No response of the registry arrived in time."""


class CapabilityTimeout(ClientError, TimeoutError):
    """No healthy or degraded agent provided the capability in time."""


class RequestRejected(ClientError):
    """The registry rejected a request.

    `response` is the body of its error response, `code` the error code in it, and `details` its invalid fields.
    """

    def __init__(self, message: str, response: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.response = response
        self.code: str = str(response.get("error", ""))
        self.details: Sequence[Mapping[str, str]] = tuple(response.get("details") or ())


class WatchExpired(RequestRejected):
    """The registry no longer has the changes after the version from which a watch resumes: list the agents again."""


class ClientClosed(ClientError, RuntimeError):
    """The client was closed before or during the call; a call in progress may have been applied."""


class DependencyUnavailable(ClientError, ConnectionError):
    """No provider of a dependency is resolved, or the provider cannot be reached or was lost during the call.

    `outcome` shows whether the provider may have executed the call: `not_sent` (it did not) or `unknown`. `repeatable`
    is true if a repetition is harmless: nothing was sent, or the tool is annotated as read-only or idempotent.
    """

    def __init__(self, message: str, *, outcome: Outcome = "not_sent", repeatable: bool = True) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.repeatable = repeatable


class DependencyTimeout(ClientError, TimeoutError):
    """The provider of a dependency did not respond in time; the call may have been carried out."""


class DependencyFailed(ClientError, RuntimeError):
    """The provider of a dependency returned an error, or does not have the tool."""


class DecoratorOrderError(ClientError, TypeError):
    """`@mesh_agent` is above `@server.tool()`, so the server would call the function without its dependencies."""


class McpLibraryMissing(ClientError, ImportError):
    """The MCP SDK is not installed; the message has the command that installs it."""
