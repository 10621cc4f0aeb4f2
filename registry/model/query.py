"""Queries for agents and capabilities."""

from dataclasses import dataclass, field

from registry.model.label_selector import LabelSelector


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """A query for agents that match all given conditions.

    `status` is a status or an alias for several; `draining` None matches draining agents and others. One
    capability must match all capability conditions. Each of several names must belong to such a capability; with
    `any_capability` one of them is enough. With `fuzzy` names match approximately, and the best match comes first.
    """

    namespace: str | None = None
    status: str = "any"
    draining: bool | None = None
    agent_id: str | None = None
    selector: LabelSelector = field(default_factory=LabelSelector)
    capabilities: tuple[str, ...] = ()
    any_capability: bool = False
    category: str | None = None
    stability: str | None = None
    tags: tuple[str, ...] = ()
    version_constraint: str | None = None
    fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class CapabilityQuery:
    """A query for capabilities that match all given conditions; conditions named `agent_…` apply to their agents.

    `text` is searched approximately in names, tags and descriptions; the best match comes first.
    """

    name: str | None = None
    text: str | None = None
    description_contains: str | None = None
    category: str | None = None
    stability: str | None = None
    tags: tuple[str, ...] = ()
    version_constraint: str | None = None
    fuzzy: bool = False
    include_deprecated: bool = False
    agent_namespace: str | None = None
    agent_status: str = "any"
    agent_draining: bool | None = None
    agent_id: str | None = None
