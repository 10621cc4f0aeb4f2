"""The registry as plain Python: what the scripts must do, said once more and as simply as possible.

An oracle for property tests, never a backend. It knows no time: `make_overdue` says that an agent's deadline has
passed.
"""

from dataclasses import dataclass, field
from typing import Literal

from registry.model.agent import Status

Precondition = Literal["none", "absent", "present", "spec", "current", "older", "newer"]


@dataclass
class ModelAgent:
    """One agent as it must be."""

    spec: bytes
    status: Status
    version: int
    spec_version: int
    had_heartbeat: bool = False
    draining: bool = False


@dataclass
class ReferenceRegistry:
    """All agents, and what each operation must answer. Versions are told by the caller: they only have to rise."""

    agents: dict[str, ModelAgent] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    last_version: int = 0

    def precondition_met(self, agent_id: str, precondition: Precondition) -> bool:
        """Tell whether a precondition holds."""
        known = self.agents.get(agent_id)
        if precondition == "none":
            return True
        if precondition == "absent":
            return known is None
        return known is not None and precondition in ("present", "spec", "current")

    def precondition_argument(self, agent_id: str, precondition: Precondition) -> str:
        """Return the precondition as the store takes it."""
        known = self.agents.get(agent_id)
        spec, current = (known.spec_version, known.version) if known else (5, 5)
        words = {"none": "", "spec": str(spec), "current": str(current), "older": str(spec - 1)}
        return words.get(precondition, str(current + 1) if precondition == "newer" else precondition)

    def register(self, agent_id: str, spec: bytes, version: int) -> str:
        """Note an admitted registration; return what the store must call it."""
        self.overdue.discard(agent_id)
        known = self.agents.get(agent_id)
        if known is None:
            self.agents[agent_id] = ModelAgent(spec, "pending", self._advance_version(version), version)
            return "created"
        revived = known.status not in ("pending", "healthy")
        if known.status != "pending":
            known.status, known.had_heartbeat = "healthy", True
        if known.spec != spec:
            known.spec, known.version, known.spec_version = spec, self._advance_version(version), version
            return "updated"
        if revived:
            known.version = self._advance_version(version)
        assert version == known.version
        return "unchanged"

    def heartbeat(self, agent_id: str, mode: str) -> tuple[str, bool]:
        """Note a heartbeat; return the store's word, and whether it is a change."""
        known = self.agents.get(agent_id)
        if known is None:
            return "unknown_agent", False
        if mode == "extend" and known.status != "healthy":
            return known.status, False
        self.overdue.discard(agent_id)
        changed, known.status, known.had_heartbeat = known.status != "healthy", "healthy", True
        return "healthy", changed

    def drain(self, agent_id: str, version: int | None, *, draining: bool) -> str:
        """Note a drain or its end; return what the store must call it."""
        known = self.agents.get(agent_id)
        if known is None:
            assert version is None
            return "unknown_agent"
        if known.draining == draining:
            assert version == known.version
            return "unchanged"
        known.draining, known.version = draining, self._advance_version(version or 0)
        return "changed"

    def unregister(self, agent_id: str) -> bool:
        """Forget an agent; tell whether there was one."""
        self.overdue.discard(agent_id)
        return self.agents.pop(agent_id, None) is not None

    def make_overdue(self, agent_id: str) -> None:
        """Let the agent's deadline pass."""
        if agent_id in self.agents:
            self.overdue.add(agent_id)

    def sweep(self) -> None:
        """Move every overdue agent one step on."""
        for agent_id in list(self.overdue):
            known = self.agents[agent_id]
            if known.status == "expired":
                del self.agents[agent_id]
            else:
                known.status = "expired" if known.status == "degraded" else "degraded"
        self.overdue.clear()

    def _advance_version(self, version: int) -> int:
        assert version > self.last_version
        self.last_version = version
        return version
