"""Queries for agents and capabilities."""

from dataclasses import dataclass, field
from typing import Final

from registry.model.label_selector import LabelSelector

_BYTES_PER_QUERY: Final = 512
# A string without its characters, and its entry in a tuple or set.
_BYTES_PER_TEXT: Final = 120


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

    @property
    def approximate_bytes(self) -> int:
        """The approximate memory of the query in bytes."""
        texts = [*self.capabilities, *self.tags, *self.selector.texts]
        texts += filter(
            None, (self.namespace, self.status, self.agent_id, self.category, self.stability, self.version_constraint)
        )
        return _BYTES_PER_QUERY + sum(_BYTES_PER_TEXT + (1 if text.isascii() else 4) * len(text) for text in texts)


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
