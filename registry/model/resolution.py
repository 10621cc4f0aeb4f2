"""Types of a dependency's resolution: ranked providers, rejected candidates, resolved dependencies."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
import orjson

from registry.model.agent import Agent, Dependency, LookupKey, Status

Stage: TypeAlias = Literal["health", "draining", "namespace", "required", "tags", "version", "schema"]
STAGE_DESCRIPTIONS: Final[Mapping[Stage, str]] = {
    "health": "unhealthy",
    "draining": "draining",
    "namespace": "in another namespace",
    "required": "with an unresolved required dependency",
    "tags": "without the required tags",
    "version": "with another version",
    "schema": "with another schema",
}
"""The stages at which a candidate can be rejected, in order, with a description of the rejected candidates."""


class Provider(msgspec.Struct, frozen=True, gc=False):
    """A capability of an agent that matches a dependency; `extension` is data for another response format.

    `created` is the time of the agent's registration. With `late` its heartbeat was late when it was last read.
    """

    agent_id: str
    endpoint: str
    tool_name: str
    version: str
    degraded: bool
    score: int
    weight: float
    zone: str | None
    position: int
    extension: bytes = b""
    created: int = 0
    late: bool = False


class RejectedCandidate(msgspec.Struct, frozen=True, gc=False):
    """A capability at `position` of its agent that does not match a dependency: stage and reason of its rejection."""

    agent_id: str
    tool_name: str
    version: str
    status: Status
    stage: Stage
    reason: str
    position: int


class LatenessCheck(msgspec.Struct, eq=False, gc=False):
    """Until when the `late` fields of a ranking are valid, in seconds of the monotonic clock.

    With `outdated` a field has changed, so the ranking and each resolution that was made with it must be made again.
    """

    valid_until: float = -math.inf
    outdated: bool = False


class RankedProviders(msgspec.Struct, gc=False):
    """The providers that match a dependency, the best first, at one resource version.

    `rejected_by_stage` counts the rejected candidates, `rejected_sample` has the first of them by id. `lateness` is
    None if there are fewer than two providers, which late heartbeats cannot reorder.
    """

    providers: tuple[Provider, ...]
    rejected_by_stage: Counter[Stage]
    rejected_sample: tuple[RejectedCandidate, ...]
    version: int
    lateness: LatenessCheck | None = None

    @property
    def outdated(self) -> bool:
        """Whether a provider has become late, or has returned, since the ranking was made."""
        return self.lateness is not None and self.lateness.outdated

    @property
    def reason(self) -> str:
        """The reason why no provider matches, as a phrase for messages."""
        found = self.rejected_by_stage.total()
        if not found:
            return "no agent has this capability"
        parts = [
            f"{self.rejected_by_stage[stage]} {description}"
            for stage, description in STAGE_DESCRIPTIONS.items()
            if self.rejected_by_stage[stage]
        ]
        return f"none of the {found} candidates qualifies: {', '.join(parts)}"


class ResolvedDependency(msgspec.Struct, frozen=True, gc=False):
    """One dependency of one function, and its provider or the reason why there is none."""

    function: str
    dependency: Dependency
    provider: Provider | None
    reason: str | None

    @property
    def provider_fields(self) -> dict[str, str] | None:
        """The fields of the provider in a response."""
        provider = self.provider
        if provider is None:
            return None
        return {"agent_id": provider.agent_id, "endpoint": provider.endpoint, "tool_name": provider.tool_name}


class CachedResolution(msgspec.Struct, gc=False):
    """All resolved dependencies of one agent, cached.

    It is valid for `agent`, up to at least `version` of the view, as long as the `lateness_checks` of its rankings are,
    and if `depends_on_load`, for the loads it was made with. `lookup_keys` are the keys the resolution depends on.
    `encoded_fields` are the fields of the response, `digest` their digest; both are empty for an agent without
    functions and dependencies. `sent_digest` is the digest of the response that the agent received last; the trace of
    that response is stored. `list_row` is the encoded row of the agent in lists.
    """

    agent: Agent
    version: int
    depends_on_load: bool
    lookup_keys: tuple[LookupKey, ...]
    dependencies: tuple[ResolvedDependency, ...]
    digest: str
    encoded_fields: bytes
    lateness_checks: tuple[LatenessCheck, ...] = ()
    sent_digest: str = ""
    list_row: bytes = b""

    @property
    def response_fields(self) -> Mapping[str, Any]:
        """The fields of the response, decoded from the cached JSON."""
        return orjson.loads(b"{%s}" % self.encoded_fields.removeprefix(b",")) if self.encoded_fields else {}
