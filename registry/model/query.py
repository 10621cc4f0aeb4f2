"""What can be asked of the cache."""

from dataclasses import dataclass, field

from registry.model.label_selector import LabelSelector


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """Which agents: every condition given must hold.

    `status` is a status or one of the words that stand for several; `draining` None asks for agents in service and
    out of it alike. All capability conditions speak of one and the same capability; of several names each must be met
    by a capability that meets the other conditions too, or any of them if `any_capability`. With `fuzzy` names need
    only be nearly as asked, and the best match comes first.
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
    """Which capabilities of which agents: every condition given must hold.

    `text` is looked for in names, tags and descriptions, forgivingly, best first.
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
