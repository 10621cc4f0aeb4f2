"""Agents that can do `c`, and views that hold them: what rankings are made of."""

from typing import Any

from registry.cache.view import View
from registry.model.agent import Agent, Capability, Dependency, Status
from registry.model.change import LogPosition
from tests.support.builders import an_agent


def provider_agent(
    agent_id: str = "p",
    status: Status = "healthy",
    *,
    namespace: str = "default",
    draining: bool = False,
    **capability: Any,
) -> Agent:
    """Return an agent that can do `c`."""
    made = an_agent(agent_id, status=status, namespace=namespace, capabilities=[{"name": "c", **capability}])
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return Agent(**{**fields, "draining": draining})


def view_of(*agents: Agent) -> View:
    """Return a view that holds these."""
    view = View(LogPosition(1, "h"))
    for agent in agents:
        view.put(agent, None, 0)
    return view


def no_missing_requirement(_agent: Agent, _capability: Capability) -> Dependency | None:
    """Tell that a capability lacks nothing it cannot do without."""
    return None
