"""The ranking cache, and required dependencies: resolved, unresolved, transitive, and in cycles."""

from typing import Any

import msgspec
import pytest

from registry.cache.view import View
from registry.compat.mcpmesh.match_policies import match_policies
from registry.compat.mcpmesh.spec_fields import McpMeshDependency
from registry.model.agent import Agent, Dependency
from registry.model.resolution import Provider
from registry.service.resolution.ranking_cache import RankingCache
from tests.support.builders import a_change, an_agent
from tests.support.resolution_builders import provider_agent, view_of

ANY = Dependency("c")


@pytest.fixture
def rankings() -> RankingCache:
    """Provide a ranking cache with the policies of all formats."""
    return RankingCache(match_policies())


def test_equal_dependencies_share_one_ranking(rankings: RankingCache) -> None:
    """The ranking stays until a provider of the capability changes."""
    view = view_of(provider_agent("a"))
    first = rankings.get(view, ANY, "default")

    view.apply(a_change(2, agent=an_agent("z", 2, capabilities=[{"name": "other"}])), 0)
    unmoved = rankings.get(view, Dependency("c", strategy="random"), "default")
    view.apply(a_change(3, agent=an_agent("b", 3, capabilities=[{"name": "c"}])), 0)
    moved = rankings.get(view, ANY, "default")

    assert unmoved is first
    assert [each.agent_id for each in moved.providers] == ["a", "b"]


def test_a_selected_and_a_stored_dependency_share_one_ranking(rankings: RankingCache) -> None:
    """The dependency of GET /select is a plain one; one that requires a schema has its own ranking."""
    view = view_of(provider_agent("a"))
    first = rankings.get(view, ANY, "default")

    assert rankings.get(view, McpMeshDependency("c"), "default") is first
    assert rankings.get(view, McpMeshDependency("c", schema_match_mode="subset"), "default") is not first


def test_a_ranking_belongs_to_one_view(rankings: RankingCache) -> None:
    """A refill of the cache discards all rankings."""
    rankings.get(view_of(provider_agent("a")), ANY, "default")

    found = rankings.get(view_of(provider_agent("b")), ANY, "default").providers

    assert [each.agent_id for each in found] == ["b"]
    assert all(isinstance(each, Provider) for each in found)


def an_agent_that_requires(agent_id: str, name: str, required: str, version: int = 1, **conditions: Any) -> Agent:
    """Return an agent with one capability that requires another one."""
    return an_agent(agent_id, version, capabilities=[requires(name, required, **conditions)])


def requires(name: str, required: str, **conditions: Any) -> dict[str, Any]:
    """Return a capability that requires another one."""
    return {"name": name, "dependencies": [{"capability": required, "required": True, **conditions}]}


def providers(rankings: RankingCache, view: View, name: str) -> list[str]:
    """Return the ids of the providers of a capability."""
    return [each.agent_id for each in rankings.get(view, Dependency(name), "default").providers]


def test_a_provider_with_an_unresolved_requirement_is_rejected(rankings: RankingCache) -> None:
    """The reason names the requirement."""
    view = view_of(an_agent_that_requires("a", "a", "b"))

    ranking = rankings.get(view, Dependency("a"), "default")

    assert not ranking.providers
    assert [(rejected.stage, rejected.reason) for rejected in ranking.rejected_sample] == [
        ("required", "required dependency b is unresolved")
    ]


def test_a_change_at_the_end_of_a_chain_reaches_its_start(rankings: RankingCache) -> None:
    """The ranking of `a` depends on `c`, although `a` does not require it directly."""
    view = view_of(an_agent_that_requires("a", "a", "b"), an_agent_that_requires("b", "b", "c"))
    before = providers(rankings, view, "a")

    view.apply(a_change(2, agent=an_agent("c", 2, capabilities=[{"name": "c"}])), 0)
    resolved_chain = providers(rankings, view, "a")
    view.apply(a_change(3, kind="remove", agent=an_agent("c", 3, capabilities=[{"name": "c"}])), 0)

    assert (before, resolved_chain, providers(rankings, view, "a")) == ([], ["a"], [])


def test_a_requirement_must_match_all_its_conditions(rankings: RankingCache) -> None:
    """Its tags count as in any dependency."""
    view = view_of(an_agent_that_requires("a", "a", "c", tags=["x"]), provider_agent("c"))
    without = providers(rankings, view, "a")

    view.apply(a_change(2, agent=an_agent("d", 2, capabilities=[{"name": "c", "tags": ["x"]}])), 0)

    assert (without, providers(rankings, view, "a")) == ([], ["a"])


def test_a_cycle_has_no_providers(rankings: RankingCache) -> None:
    """A cycle in the store also excludes capabilities that lead into it, but no others."""
    view = view_of(
        an_agent_that_requires("a", "a", "b"),
        an_agent_that_requires("b", "b", "a"),
        an_agent_that_requires("into", "into", "a"),
        an_agent_that_requires("beside", "beside", "c"),
        provider_agent("c"),
    )

    assert [providers(rankings, view, name) for name in ("a", "b", "into", "beside")] == [[], [], [], ["beside"]]


def test_a_cycle_does_not_exclude_another_provider(rankings: RankingCache) -> None:
    """Only the agent in the cycle is rejected."""
    view = view_of(
        an_agent_that_requires("a", "a", "b"),
        an_agent_that_requires("b", "b", "a"),
        an_agent("z", capabilities=[{"name": "b"}]),
    )

    assert providers(rankings, view, "b") == ["z"]


def test_a_cycle_through_any_namespace_has_no_providers(rankings: RankingCache) -> None:
    """Its computation terminates; the same capability of another namespace is not part of it."""
    view = view_of(
        an_agent_that_requires("a", "a", "b", namespace="*"),
        an_agent("b", namespace="m", capabilities=[requires("b", "a", namespace="default")]),
        an_agent("c", namespace="m", capabilities=[requires("a", "c")]),
        an_agent("d", namespace="m", capabilities=[{"name": "c"}]),
    )

    assert [providers(rankings, view, name) for name in ("a", "b")] == [[], []]
    assert [each.agent_id for each in rankings.get(view, Dependency("a"), "m").providers] == ["c"]


def test_a_requirement_of_an_agent_applies_to_all_its_capabilities(rankings: RankingCache) -> None:
    """None of them has a provider while it is unresolved."""
    agent = an_agent(
        "a", capabilities=[{"name": "one"}, {"name": "two"}], dependencies=[{"capability": "c", "required": True}]
    )
    view = view_of(agent)

    assert [providers(rankings, view, name) for name in ("one", "two")] == [[], []]


@pytest.mark.parametrize(("length", "resolved"), [(64, True), (128, True), (129, False), (2000, False)])
def test_a_chain_is_followed_to_a_maximum_depth(rankings: RankingCache, length: int, resolved: bool) -> None:  # noqa: FBT001
    """Two restored backups can contain a longer chain than a registration may; it exceeded the recursion limit.

    Capabilities within the maximum depth are resolved in any order of the lookups.
    """
    links = [
        an_agent(
            f"a{at}",
            capabilities=[{"name": f"n{at}", "dependencies": [{"capability": f"n{at + 1}", "required": True}]}],
        )
        for at in range(length - 1)
    ]
    view = view_of(*links, an_agent("end", capabilities=[{"name": f"n{length - 1}"}]))

    for dependency in (Dependency(f"n{max(0, length - 128)}"), Dependency("n0")):
        assert bool(rankings.get(view, dependency, "default").providers) is (resolved or dependency.capability != "n0")


def test_the_cache_is_limited_in_bytes() -> None:
    """A client that requested a different schema of 1 MB each time filled 16 GB."""
    rankings, view = RankingCache(match_policies()), view_of(provider_agent("a"))

    for at in range(30):
        schema = msgspec.Raw(b'{"title":"%d%s"}' % (at, b"x" * (1 << 20)))
        rankings.get(view, McpMeshDependency("c", schema_match_mode="subset", expected_schema=schema), "default")

    assert rankings._cache.weight <= 128 * 1024 * 1024
    assert rankings.get(view, ANY, "default") is rankings.get(view, ANY, "default")
