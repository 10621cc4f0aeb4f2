"""A reference model of the scripts in plain Python, for property tests.

It has no clock: `make_overdue` lets the deadline of an agent pass.
"""

from dataclasses import dataclass, field
from typing import Literal

from registry.model.agent import Status

Precondition = Literal["none", "absent", "present", "spec", "current", "older", "newer"]


@dataclass
class ModelAgent:
    """The expected state of one agent."""

    spec: bytes
    status: Status
    version: int
    spec_version: int
    had_heartbeat: bool = False
    draining: bool = False


@dataclass
class ReferenceRegistry:
    """All agents, and the expected result of each operation. The caller passes versions, which only have to rise."""

    agents: dict[str, ModelAgent] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    last_version: int = 0

    def precondition_met(self, agent_id: str, precondition: Precondition) -> bool:
        """Return whether a precondition is met."""
        agent = self.agents.get(agent_id)
        if precondition == "none":
            return True
        if precondition == "absent":
            return agent is None
        return agent is not None and precondition in ("present", "spec", "current")

    def precondition_argument(self, agent_id: str, precondition: Precondition) -> str:
        """Return the precondition as the store expects it."""
        agent = self.agents.get(agent_id)
        spec, current = (agent.spec_version, agent.version) if agent else (5, 5)
        words = {"none": "", "spec": str(spec), "current": str(current), "older": str(spec - 1)}
        return words.get(precondition, str(current + 1) if precondition == "newer" else precondition)

    def register(self, agent_id: str, spec: bytes, version: int) -> str:
        """Apply a registration; return the expected outcome."""
        self.overdue.discard(agent_id)
        agent = self.agents.get(agent_id)
        if agent is None:
            self.agents[agent_id] = ModelAgent(spec, "pending", self._advance_version(version), version)
            return "created"
        revived = agent.status not in ("pending", "healthy")
        if agent.status != "pending":
            agent.status, agent.had_heartbeat = "healthy", True
        if agent.spec != spec:
            agent.spec, agent.version, agent.spec_version = spec, self._advance_version(version), version
            return "updated"
        if revived:
            agent.version = self._advance_version(version)
        assert version == agent.version
        return "unchanged"

    def heartbeat(self, agent_id: str, mode: str) -> tuple[str, bool]:
        """Apply a heartbeat; return the expected outcome, and whether it changes the agent."""
        agent = self.agents.get(agent_id)
        if agent is None:
            return "unknown_agent", False
        if mode == "extend" and agent.status != "healthy":
            return agent.status, False
        self.overdue.discard(agent_id)
        changed, agent.status, agent.had_heartbeat = agent.status != "healthy", "healthy", True
        return "healthy", changed

    def drain(self, agent_id: str, version: int | None, *, draining: bool) -> str:
        """Drain or undrain an agent; return the expected outcome."""
        agent = self.agents.get(agent_id)
        if agent is None:
            assert version is None
            return "unknown_agent"
        if agent.draining == draining:
            assert version == agent.version
            return "unchanged"
        agent.draining, agent.version = draining, self._advance_version(version or 0)
        return "changed"

    def unregister(self, agent_id: str) -> bool:
        """Remove an agent; return whether it existed."""
        self.overdue.discard(agent_id)
        return self.agents.pop(agent_id, None) is not None

    def make_overdue(self, agent_id: str) -> None:
        """Let the agent's deadline pass."""
        if agent_id in self.agents:
            self.overdue.add(agent_id)

    def sweep(self) -> None:
        """Change every overdue agent to its next status."""
        for agent_id in list(self.overdue):
            agent = self.agents[agent_id]
            if agent.status == "expired":
                del self.agents[agent_id]
            else:
                agent.status = "expired" if agent.status == "degraded" else "degraded"
        self.overdue.clear()

    def _advance_version(self, version: int) -> int:
        assert version > self.last_version
        self.last_version = version
        return version
