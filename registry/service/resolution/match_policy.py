"""In which ways those who look for providers differ, by the form they registered in; all else is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from registry.compat.mcpmesh import masterminds_semver
from registry.model.agent import Profile, Status
from registry.service import versions


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """How providers are judged.

    `alive` are the statuses of an agent that can be chosen; `isolates` tells whether an agent of another namespace than
    the one asked for falls out, `requires` whether a capability falls out that lacks what it cannot do without;
    `constraint` reads a version constraint and raises MalformedRequest, `order` a version and returns None for what is
    none.
    """

    alive: frozenset[Status] = frozenset({"healthy", "degraded"})
    isolates: bool = True
    requires: bool = True
    constraint: Callable[[str], Callable[[str], bool]] = versions.constraint
    order: Callable[[str], Any] = versions.order


PLAIN: Final = Rules()
FLAT: Final = Rules(frozenset({"healthy"}), constraint=masterminds_semver.constraint, order=masterminds_semver.order)


class RuleBook:
    """Knows whose rules are which. Without `isolates` agents in flat form find others in any namespace."""

    def __init__(self, *, isolates: bool = True) -> None:
        self._flat = FLAT if isolates else replace(FLAT, isolates=False)
        self.llm = replace(self._flat, requires=False)
        """The rules by which tools and providers are found for language models."""

    def of(self, profile: Profile) -> Rules:
        """Return the rules of an agent."""
        return PLAIN if profile.flat is None else self._flat
