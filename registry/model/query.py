"""What can be asked of the cache."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """Which agents: every condition given must hold.

    All capabilities named must be met, each by one capability of the agent that also satisfies `version_constraint`.
    `status` is a status or one of the words that stand for several.
    """

    namespace: str | None = None
    status: str = "any"
    capabilities: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    version_constraint: str | None = None


@dataclass(frozen=True, slots=True)
class CapabilityQuery:
    """Which capabilities of which agents: every condition given must hold."""

    name: str | None = None
    version_constraint: str | None = None
    include_deprecated: bool = False
    agent_namespace: str | None = None
    agent_status: str = "any"
    agent_id: str | None = None
