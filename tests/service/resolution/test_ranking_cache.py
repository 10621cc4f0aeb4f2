"""Kept rankings, and what capabilities cannot do without: met, unmet, through chains, and in circles."""

from typing import Any

import msgspec
import pytest

from registry.cache.view import View
from registry.compat.mcpmesh.policy import match_policies
from registry.compat.mcpmesh.spec import McpMeshDependency
from registry.model.agent import Agent, Dependency
from registry.model.resolution import Provider
from registry.service.resolution.ranking_cache import RankingCache
from tests.support.builders import a_change, an_agent
from tests.support.resolution_builders import provider_agent, view_of

ANY = Dependency("c")


@pytest.fixture
def rankings() -> RankingCache:
    """Rankings by the rules of the registry's own forms."""
    return RankingCache(match_policies())


def test_all_who_want_the_same_share_one_ranking(rankings: RankingCache) -> None:
    """Until something changes for those who want the capability."""
    view = view_of(provider_agent("a"))
    first = rankings.get(view, ANY, "default")

    view.apply(a_change(2, agent=an_agent("z", 2, capabilities=[{"name": "other"}])), 0)
    unmoved = rankings.get(view, Dependency("c", strategy="random"), "default")
    view.apply(a_change(3, agent=an_agent("b", 3, capabilities=[{"name": "c"}])), 0)
    moved = rankings.get(view, ANY, "default")

    assert unmoved is first
    assert [each.agent_id for each in moved.providers] == ["a", "b"]


def test_a_ranking_is_of_its_view(rankings: RankingCache) -> None:
    """A refill leaves nothing of the view before it."""
    rankings.get(view_of(provider_agent("a")), ANY, "default")

    found = rankings.get(view_of(provider_agent("b")), ANY, "default").providers

    assert [each.agent_id for each in found] == ["b"]
    assert all(isinstance(each, Provider) for each in found)


def needing(agent_id: str, name: str, needed: str, version: int = 1, **need: Any) -> Agent:
    """Return an agent whose one capability cannot do without another one."""
    dependency = {"capability": needed, "required": True, **need}
    return an_agent(agent_id, version, capabilities=[{"name": name, "dependencies": [dependency]}])


def providers(rankings: RankingCache, view: View, name: str) -> list[str]:
    """Return who will do for a capability."""
    return [each.agent_id for each in rankings.get(view, Dependency(name), "default").providers]


def test_what_lacks_something_required_is_not_chosen(rankings: RankingCache) -> None:
    """The reason names what it lacks."""
    view = view_of(needing("a", "a", "b"))

    ranking = rankings.get(view, Dependency("a"), "default")

    assert not ranking.providers
    assert [(out.stage, out.reason) for out in ranking.rejected_sample] == [
        ("required", "required dependency b is unresolved")
    ]


def test_a_chain_heals_from_its_end(rankings: RankingCache) -> None:
    """Nobody asked about a for what happens to c, and yet a is another one by it."""
    view = view_of(needing("a", "a", "b"), needing("b", "b", "c"))
    before = providers(rankings, view, "a")

    view.apply(a_change(2, agent=an_agent("c", 2, capabilities=[{"name": "c"}])), 0)
    healed = providers(rankings, view, "a")
    view.apply(a_change(3, kind="remove", agent=an_agent("c", 3, capabilities=[{"name": "c"}])), 0)

    assert (before, healed, providers(rankings, view, "a")) == ([], ["a"], [])


def test_a_required_dependency_is_met_only_by_what_is_wanted(rankings: RankingCache) -> None:
    """Tags count there as they do anywhere."""
    view = view_of(needing("a", "a", "c", tags=["x"]), provider_agent("c"))
    without = providers(rankings, view, "a")

    view.apply(a_change(2, agent=an_agent("d", 2, capabilities=[{"name": "c", "tags": ["x"]}])), 0)

    assert (without, providers(rankings, view, "a")) == ([], ["a"])


def test_a_circle_is_met_by_nobody_and_ends(rankings: RankingCache) -> None:
    """However it came into the store; who leads into it is unmet, who stands beside it is not."""
    view = view_of(
        needing("a", "a", "b"),
        needing("b", "b", "a"),
        needing("into", "into", "a"),
        needing("beside", "beside", "c"),
        provider_agent("c"),
    )

    assert [providers(rankings, view, name) for name in ("a", "b", "into", "beside")] == [[], [], [], ["beside"]]


def test_a_circle_does_not_hide_another_provider(rankings: RankingCache) -> None:
    """Only who is in it falls out."""
    view = view_of(needing("a", "a", "b"), needing("b", "b", "a"), an_agent("z", capabilities=[{"name": "b"}]))

    assert providers(rankings, view, "b") == ["z"]


def test_a_whole_agent_may_need_something(rankings: RankingCache) -> None:
    """Then none of its capabilities can do without."""
    agent = an_agent(
        "a", capabilities=[{"name": "one"}, {"name": "two"}], dependencies=[{"capability": "c", "required": True}]
    )
    view = view_of(agent)

    assert [providers(rankings, view, name) for name in ("one", "two")] == [[], []]


@pytest.mark.parametrize(("length", "met"), [(64, True), (128, True), (129, False), (2000, False)])
def test_a_chain_ends_however_long_it_is(rankings: RankingCache, length: int, met: bool) -> None:  # noqa: FBT001
    """Two backups, each right, can add up to what no registration may do; it was followed until Python gave up.

    What is near enough to the end is met all the same, whoever asked first.
    """
    links = [
        an_agent(
            f"a{at}",
            capabilities=[{"name": f"n{at}", "dependencies": [{"capability": f"n{at + 1}", "required": True}]}],
        )
        for at in range(length - 1)
    ]
    view = view_of(*links, an_agent("end", capabilities=[{"name": f"n{length - 1}"}]))

    for asked in (Dependency(f"n{max(0, length - 128)}"), Dependency("n0")):
        assert bool(rankings.get(view, asked, "default").providers) is (met or asked.capability != "n0")


def test_what_is_kept_has_a_bound_in_bytes() -> None:
    """A client that wanted something else each time, of a megabyte, filled 16 GB."""
    rankings, view = RankingCache(match_policies()), view_of(provider_agent("a"))

    for at in range(30):
        schema = msgspec.Raw(b'{"title":"%d%s"}' % (at, b"x" * (1 << 20)))
        rankings.get(view, McpMeshDependency("c", schema_match_mode="subset", expected_schema=schema), "default")

    assert rankings._cache.weight <= 128 * 1024 * 1024
    assert rankings.get(view, ANY, "default") is rankings.get(view, ANY, "default")
