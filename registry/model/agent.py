"""An agent as the registry holds it, and what others look it up by."""

from typing import Literal, get_args

import msgspec

from registry.model.forms import DEFAULT_NAMESPACE, DEFAULT_STABILITY, DEFAULT_VERSION

Status = Literal["pending", "healthy", "degraded", "expired"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Capability(msgspec.Struct, frozen=True, gc=False):
    """What the indexes and filters know of one capability; everything else stays in the agent's `spec`."""

    name: str
    version: str = DEFAULT_VERSION
    stability: str = DEFAULT_STABILITY
    category: str | None = None
    tags: tuple[str, ...] = ()
    description: str = ""


class Profile(msgspec.Struct, frozen=True, gc=False):
    """The part of a spec that filters look at, with the defaults of the API filled in. Read straight from the JSON."""

    namespace: str = DEFAULT_NAMESPACE
    capabilities: tuple[Capability, ...] = ()
    labels: dict[str, str] = {}


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One agent after one change.

    `spec` is what it registered, as canonical JSON. `version` is the resource version of its last change of any kind,
    `spec_version` that of the last change of what it says of itself. While it is `draining` it lives on, and nobody
    is to be sent to it. `created` and `updated` are Redis-server milliseconds; `timeout` and `eviction` are
    milliseconds without a heartbeat until degraded and until expired.
    """

    id: str
    spec: bytes
    status: Status
    draining: bool
    version: int
    spec_version: int
    created: int
    updated: int
    timeout: int
    eviction: int
    profile: Profile


class Held(msgspec.Struct, frozen=True, gc=False):
    """An agent with its last heartbeat in Redis-server milliseconds, None before the first: what a fill reads."""

    agent: Agent
    heartbeat: int | None


_read_profile = msgspec.json.Decoder(Profile).decode


def read_profile(spec: bytes) -> Profile:
    """Read what filters need from a canonical spec. Raises msgspec.DecodeError for one that is not."""
    return _read_profile(spec)
