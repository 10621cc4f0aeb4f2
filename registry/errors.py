"""The errors of the registry, as one tree of classes.

    RegistryError
    ├── InvalidRequest            the request is invalid; `details` names every invalid field
    │   ├── MalformedRequest      400  not JSON, an invalid selector or constraint, an unknown parameter
    │   │   └── MalformedForeignRequest  in the format of another product, which defines the response
    │   ├── UnprocessableRequest  422  well-formed, but fields are missing or invalid
    │   ├── RequestTooLarge       413
    │   └── UnsupportedMediaType  415
    ├── Unauthorized              401
    ├── Forbidden                 403
    │   └── OriginRefused         403  a web page of another site sent the request
    ├── UnknownHost               421  the name in the Host header is not one of the registry
    ├── RequestRejected           rejected because of the state of the store
    │   ├── UnknownAgent          404
    │   ├── NoProvider            404
    │   ├── StaleVersion          409
    │   └── IdInUse               409
    ├── VersionTooOld             410  list again: the change log no longer contains the requested version
    │   └── VersionAhead          410  list again: the version is above the current one, so it is from another timeline
    ├── TooManyRequests           429
    ├── AgentUnreachable          502  an agent did not respond to a forwarded call
    ├── NotReady                  503  the cache is not filled yet, the replica is shutting down or has too many calls
    ├── StoreUnavailable          503  Redis did not respond or rejected the command
    └── StartupError              the process cannot start; the message contains the advised action

Each class has its `code`, the word in Lua replies, logs and JSON bodies. The HTTP status of each class is defined in
`api/error_responses.py`. Bugs are not in the tree: they are other exceptions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

WriteOutcome = Literal["not_sent", "unknown"]

_MAX_ID_CHARS = 253


@dataclass(frozen=True, slots=True)
class Detail:
    """An invalid field of a request: its path, and the problem."""

    field: str
    problem: str


def _quote_id(agent_id: str) -> str:
    """Return an agent id for a message; an id above the length limit is truncated."""
    return repr(agent_id if len(agent_id) <= _MAX_ID_CHARS else f"{agent_id[:_MAX_ID_CHARS]}…")


class RegistryError(Exception):
    """The base class of all errors of the registry."""

    code: ClassVar[str] = "error"


class InvalidRequest(RegistryError):
    """The request is invalid; `details` names every invalid field."""

    code: ClassVar[str] = "invalid_request"

    def __init__(self, message: str, details: Sequence[Detail] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)

    @classmethod
    def of(cls, details: Sequence[Detail], separator: str = ": ") -> Self:
        """Return the error for the given fields; its message names the first field."""
        return cls(f"{details[0].field}{separator}{details[0].problem}", details)

    def with_path_prefix(self, prefix: str) -> Self:
        """Return the error with `prefix` before the path of each field, for a request that contains this one."""
        details = [Detail(f"{prefix}{detail.field}", detail.problem) for detail in self.details]
        return type(self)(f"{prefix}{self}" if details else str(self), details)


class MalformedRequest(InvalidRequest):
    """The request cannot be parsed: not JSON, an invalid selector or constraint, an unknown parameter."""

    code: ClassVar[str] = "malformed_request"


class MalformedForeignRequest(MalformedRequest):
    """A request in the format of another product cannot be parsed; `body` is the JSON response in that format."""

    def __init__(self, message: str, details: Sequence[Detail] = (), *, body: bytes) -> None:
        super().__init__(message, details)
        self.body = body


class UnprocessableRequest(InvalidRequest):
    """The request is well-formed, but fields are missing or invalid."""

    code: ClassVar[str] = "validation_failed"


class RequestTooLarge(InvalidRequest):
    """The request body is above the size limit."""

    code: ClassVar[str] = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The content type of the request body is missing or not JSON."""

    code: ClassVar[str] = "unsupported_media_type"


class Unauthorized(RegistryError):
    """The bearer token is missing or wrong. The message never contains it."""

    code: ClassVar[str] = "unauthorized"


class Forbidden(RegistryError):
    """The registry does not perform this call for any caller."""

    code: ClassVar[str] = "forbidden"


class OriginRefused(Forbidden):
    """A browser sent the request for a web page of an origin that may not call the registry."""

    code: ClassVar[str] = "origin_refused"


class UnknownHost(RegistryError):
    """The Host header has a name that is not known, as after DNS rebinding of a web page's name."""

    code: ClassVar[str] = "unknown_host"


class RequestRejected(RegistryError):
    """The request is valid, but the state of the store does not allow it."""


class UnknownAgent(RequestRejected):
    """No agent has this id: never registered, unregistered, or removed after its retention."""

    code: ClassVar[str] = "unknown_agent"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"No agent has the id {_quote_id(agent_id)}; register it first")
        self.agent_id = agent_id


class NoProvider(RequestRejected):
    """No agent has the requested capability, or none of them satisfies the request; `reason` explains it."""

    code: ClassVar[str] = "no_provider"

    def __init__(self, capability: str, reason: str) -> None:
        super().__init__(f"No agent can be selected for {_quote_id(capability)}: {reason}")
        self.reason = reason


class StaleVersion(RequestRejected):
    """The precondition of a registration failed; nothing changed. `current` is the agent's version, None if absent."""

    code: ClassVar[str] = "stale_version"

    def __init__(self, agent_id: str, current: int | None) -> None:
        state = "is not registered" if current is None else f"is at resource version {current}"
        super().__init__(
            f"Agent {_quote_id(agent_id)} {state}; read the agent again and retry with its current version"
        )
        self.agent_id = agent_id
        self.current = current


class IdInUse(RequestRejected):
    """An exclusive registration was rejected because its id belongs to a living agent at another `endpoint`."""

    code: ClassVar[str] = "id_in_use"

    def __init__(self, agent_id: str, endpoint: str) -> None:
        super().__init__(
            f"The id {_quote_id(agent_id)} is in use by an agent at {endpoint}; use another id, or retry after that "
            "agent is unregistered or expired"
        )
        self.endpoint = endpoint


class VersionTooOld(RegistryError):
    """The change log no longer contains the version from which a watch should resume; `current` is the newest."""

    code: ClassVar[str] = "version_too_old"

    def __init__(self, requested: int, current: int) -> None:
        super().__init__(
            f"Version {requested} is not in the change log (current version {current}); list again and watch from "
            "that version"
        )
        self.current = current


class VersionAhead(VersionTooOld):
    """The version from which a watch should resume is above the current one, so it belongs to another timeline."""

    code: ClassVar[str] = "version_ahead"


class AgentUnreachable(RegistryError):
    """An agent could not be reached, or did not respond in time, to a call that the registry forwards to it."""

    code: ClassVar[str] = "agent_unreachable"


class TooManyRequests(RegistryError):
    """The caller is above a limit; `retry_after` is the number of seconds until it may call again."""

    code: ClassVar[str] = "too_many_requests"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(RegistryError):
    """This replica has not filled its cache yet, is shutting down, or has too many calls of one kind in progress."""

    code: ClassVar[str] = "not_ready"


class StoreUnavailable(RegistryError):
    """Redis did not respond in time, or rejected the command.

    `outcome` states whether a write may have been applied: `not_sent` (it was not) or `unknown`. `reason` is one
    snake_case word for logs and metrics.
    """

    code: ClassVar[str] = "store_unavailable"

    def __init__(self, message: str, *, outcome: WriteOutcome = "not_sent", reason: str = "unreachable") -> None:
        super().__init__(message)
        self.outcome = outcome
        self.reason = reason

    @classmethod
    def damaged_record(cls, agent_id: str) -> Self:
        """Return the error for an agent whose record in Redis cannot be parsed."""
        return cls(f"The record of {_quote_id(agent_id)} is damaged; unregister and register it", reason="bad_record")


class StartupError(RegistryError):
    """The process cannot start; the message contains the advised action."""

    code: ClassVar[str] = "startup_failed"
