"""Everything the registry refuses or fails to do, as one tree.

    RegistryError
    ├── InvalidRequest            the caller's fault; names every bad field
    │   ├── MalformedRequest      400  not JSON, a bad selector or constraint, an unknown parameter
    │   ├── UnprocessableRequest  422  well-formed, but fields are wrong
    │   ├── RequestTooLarge       413
    │   └── UnsupportedMediaType  415
    ├── Unauthorized              401
    ├── Refused                   the store looked and said no
    │   ├── UnknownAgent          404
    │   ├── NoProvider            404
    │   └── StaleVersion          409
    ├── VersionTooOld             410  list again: the log no longer leads on from the version asked for
    │   └── VersionAhead          410  list again: the store has not come so far, so it is another history
    ├── NotReady                  503  the cache is not filled yet
    ├── StoreUnavailable          503  the store could not answer; never 404, never 410
    └── StartupError              the process cannot start; the message says what to do

Each class carries its `code`, the word used in Lua replies, logs and the JSON body. `api/error_responses.py` alone
knows the HTTP status. Bugs are not in the tree: they stay what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

WriteOutcome = Literal["not_sent", "unknown"]

_MAX_ID_CHARS = 253


@dataclass(frozen=True, slots=True)
class Detail:
    """One bad field: its path in the request and what is wrong with it."""

    field: str
    problem: str


def _quote_id(agent_id: str) -> str:
    """Return an id for a message; one that is longer than any id can be is cut."""
    return repr(agent_id if len(agent_id) <= _MAX_ID_CHARS else f"{agent_id[:_MAX_ID_CHARS]}…")


class RegistryError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "error"


class InvalidRequest(RegistryError):
    """The request cannot be carried out as it was sent; `details` names every bad field."""

    code: ClassVar[str] = "invalid_request"

    def __init__(self, message: str, details: Sequence[Detail] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)

    @classmethod
    def of(cls, details: Sequence[Detail], separator: str = ": ") -> Self:
        """Return the error for these fields; its message names the first."""
        return cls(f"{details[0].field}{separator}{details[0].problem}", details)

    def with_path_prefix(self, prefix: str) -> Self:
        """Return the same refusal of a part of a request; `prefix` is what stands before its fields' names."""
        details = [Detail(f"{prefix}{detail.field}", detail.problem) for detail in self.details]
        return type(self)(f"{prefix}{self}" if details else str(self), details)


class MalformedRequest(InvalidRequest):
    """The request cannot be read: not JSON, a bad selector or constraint, an unknown parameter."""

    code: ClassVar[str] = "malformed_request"


class UnprocessableRequest(InvalidRequest):
    """The request can be read, but fields are missing or wrong."""

    code: ClassVar[str] = "validation_failed"


class RequestTooLarge(InvalidRequest):
    """The body is over the limit."""

    code: ClassVar[str] = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body is not declared as JSON."""

    code: ClassVar[str] = "unsupported_media_type"


class Unauthorized(RegistryError):
    """The token is missing or wrong. The message never contains it."""

    code: ClassVar[str] = "unauthorized"


class RequestRejected(RegistryError):
    """The store was asked, looked, and said no."""


class UnknownAgent(RequestRejected):
    """No agent has this id: never registered, unregistered, or removed after its retention."""

    code: ClassVar[str] = "unknown_agent"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"No agent has the id {_quote_id(agent_id)}; register it first")
        self.agent_id = agent_id


class NoProvider(RequestRejected):
    """No agent has the capability that was asked for, or none of them will do; `reason` says why."""

    code: ClassVar[str] = "no_provider"

    def __init__(self, capability: str, reason: str) -> None:
        super().__init__(f"No agent can be selected for {_quote_id(capability)}: {reason}")
        self.capability = capability
        self.reason = reason


class StaleVersion(RequestRejected):
    """The precondition of a registration does not hold; nothing was changed.

    `current` is the agent's resource version now, or None when there is no such agent.
    """

    code: ClassVar[str] = "stale_version"

    def __init__(self, agent_id: str, current: int | None) -> None:
        state = "is not registered" if current is None else f"is at resource version {current}"
        super().__init__(
            f"Agent {_quote_id(agent_id)} {state}; read it again and repeat the change on what you then have"
        )
        self.agent_id = agent_id
        self.current = current


class VersionTooOld(RegistryError):
    """A watch cannot begin at this version: the log does not hold it any more. `current` is the version now."""

    code: ClassVar[str] = "version_too_old"

    def __init__(self, requested: int, current: int) -> None:
        super().__init__(f"Version {requested} is not in the log (now {current}); list again and watch from that list")
        self.requested = requested
        self.current = current


class VersionAhead(VersionTooOld):
    """A watch cannot begin at this version: the store has not come so far, so it is of another history."""

    code: ClassVar[str] = "version_ahead"


class NotReady(RegistryError):
    """This replica has not filled its cache yet."""

    code: ClassVar[str] = "not_ready"


class StoreUnavailable(RegistryError):
    """The store could not answer in time, or refused for reasons of its own.

    `outcome` tells a writer whether its write may have happened: `not_sent` (it did not) or `unknown`.
    `reason` is one lower-snake-case word for logs and metrics.
    """

    code: ClassVar[str] = "store_unavailable"

    def __init__(self, message: str, *, outcome: WriteOutcome = "not_sent", reason: str = "unreachable") -> None:
        super().__init__(message)
        self.outcome = outcome
        self.reason = reason

    @classmethod
    def damaged_record(cls, agent_id: str) -> Self:
        """Return what to raise where an agent's record cannot be read."""
        return cls(f"The record of {_quote_id(agent_id)} is damaged; unregister and register it", reason="bad_record")


class StartupError(RegistryError):
    """The process cannot start; the message says what to do."""

    code: ClassVar[str] = "startup_failed"
