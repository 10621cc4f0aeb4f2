"""Providers of the capability `c` and cache views with them, for ranking tests."""

from collections.abc import Sequence
from typing import Any, cast

from registry.cache.view import View
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.match_policies import llm_policy, match_policies
from registry.compat.mcpmesh.registration import FORMAT_NAME
from registry.compat.mcpmesh.response_encoding import McpMeshResponseFormat
from registry.model.agent import Agent, Capability, Dependency, Status
from registry.model.change import LogPosition
from registry.service.resolution.agent_load_cache import LoadCache
from registry.service.resolution.late_providers import LateProviders
from registry.service.resolution.ranking_cache import RankingCache
from registry.service.resolution.resolver import DependencyResolver
from registry.store.agents import Agents, LastHeartbeats
from registry.store.resolution_store import ResolutionStore
from tests.support.builders import an_agent


def provider_agent(
    agent_id: str = "p",
    status: Status = "healthy",
    *,
    namespace: str = "default",
    draining: bool = False,
    created: int = 0,
    **capability: Any,
) -> Agent:
    """Return an agent with the capability `c`."""
    made = an_agent(agent_id, status=status, namespace=namespace, capabilities=[{"name": "c", **capability}])
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return Agent(**{**fields, "draining": draining, "created": created})


def view_of(*agents: Agent) -> View:
    """Return a view with these agents."""
    view = View(LogPosition(1, "h"))
    for agent in agents:
        view.put(agent, None, 0)
    return view


class FakeHeartbeats:
    """A store with the last heartbeats that the test sets, in ms; agents without one are never late."""

    def __init__(self) -> None:
        self.now = 0
        self.by_agent: dict[str, int] = {}
        self.requests: list[list[str]] = []

    async def last_heartbeats(self, agent_ids: Sequence[str]) -> LastHeartbeats:
        """Return the last heartbeats and the time."""
        self.requests.append(sorted(agent_ids))
        return LastHeartbeats([self.by_agent.get(agent_id) for agent_id in agent_ids], self.now)


def make_resolver(loads: object, heartbeats: FakeHeartbeats | None = None) -> DependencyResolver:
    """Return a resolver for both registration formats, without anything cached and without an outage."""
    policies = match_policies()
    late_providers = LateProviders(cast(Agents, heartbeats or FakeHeartbeats()), lambda: None)
    rankings = RankingCache(policies, late_providers.late)
    llm_tools = LlmToolFinder(rankings, llm_policy(policies))
    load_cache = LoadCache(cast(ResolutionStore, loads))
    return DependencyResolver(rankings, load_cache, late_providers, {FORMAT_NAME: McpMeshResponseFormat(llm_tools)})


def no_missing_requirement(_agent: Agent, _capability: Capability) -> Dependency | None:
    """Report that no required dependency is missing."""
    return None
