"""Who can give what is needed, who fell out, and what was chosen; hidden from the collector of cycles like agents."""

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
"""The stages at which a candidate can fall out, in order, with what it then is."""


class Provider(msgspec.Struct, frozen=True, gc=False):
    """One capability of one agent that has everything that is wanted of it."""

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


class RejectedCandidate(msgspec.Struct, frozen=True, gc=False):
    """One that fell out: which capability of which agent, how that is, at which stage, and why.

    `position` is the capability's place in the agent's list.
    """

    agent_id: str
    tool_name: str
    version: str
    status: Status
    stage: Stage
    reason: str
    position: int


class RankedProviders(msgspec.Struct, gc=False):
    """Those who can give what is wanted, the best first, as of a version of the view.

    `rejected_by_stage` counts who fell out at which stage, `rejected_sample` shows the first of these by id.
    """

    providers: tuple[Provider, ...]
    rejected_by_stage: Counter[Stage]
    rejected_sample: tuple[RejectedCandidate, ...]
    version: int

    @property
    def reason(self) -> str:
        """Why there is nobody, in a sentence."""
        found = self.rejected_by_stage.total()
        if not found:
            return "no agent has this capability"
        parts = [
            f"{self.rejected_by_stage[stage]} {says}"
            for stage, says in STAGE_DESCRIPTIONS.items()
            if self.rejected_by_stage[stage]
        ]
        return f"none of the {found} candidates qualifies: {', '.join(parts)}"


class ResolvedDependency(msgspec.Struct, frozen=True, gc=False):
    """What one dependency of one function resolves to: a provider, or the reason why there is none."""

    function: str
    dependency: Dependency
    provider: Provider | None
    reason: str | None

    @property
    def provider_fields(self) -> dict[str, str] | None:
        """The provider as answers show it."""
        chosen = self.provider
        if chosen is None:
            return None
        return {"agent_id": chosen.agent_id, "endpoint": chosen.endpoint, "tool_name": chosen.tool_name}


class CachedResolution(msgspec.Struct, gc=False):
    """What all dependencies of one agent resolve to.

    It holds for `agent` as it is, up to `version` of the view at least; `depends_on_load`, for the loads known then.
    `lookup_keys` is
    what it looks for. `digest` stands for what is resolved, and `encoded_fields` is how answers say it; both are empty
    for an
    agent that has no functions and needs nothing. `sent_digest` is the digest the agent is known to have been told
    last, whose trace is then kept; `list_row` is kept by whoever shows the agent with it.
    """

    agent: Agent
    version: int
    depends_on_load: bool
    lookup_keys: tuple[LookupKey, ...]
    dependencies: tuple[ResolvedDependency, ...]
    digest: str
    encoded_fields: bytes
    sent_digest: str = ""
    list_row: bytes = b""

    @property
    def response_fields(self) -> Mapping[str, Any]:
        """What answers say, field by field."""
        return orjson.loads(b"{%s}" % self.encoded_fields.removeprefix(b",")) if self.encoded_fields else {}
