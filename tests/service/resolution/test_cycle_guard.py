"""Required dependencies never go in a circle, whoever registers where and when, and nobody else is blocked by one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from registry.config.settings import Settings
from registry.errors import StoreUnavailable, UnprocessableRequest
from registry.model.agent import Agent
from registry.model.registration.parse import parse_registration
from registry.service.registration.registration import RegistrationService
from registry.service.resolution import cycle_guard as edges_module
from registry.service.resolution.cycle_guard import (
    MAX_DEPENDENCY_DEPTH,
    MAX_REQUIRED_EDGES,
    CycleGuard,
    Edge,
    reject_cycles,
)
from registry.service.resolution.graph import find_cycles
from registry.store.agents import RegistrationResult
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from tests.support.builders import a_spec, an_agent
from tests.support.http_calls import a_registration
from tests.support.polling import async_wait_until
from tests.support.reflectors import make_reflector
from tests.support.resolution_builders import view_of


def requiring(agent_id: str, *edges: Edge) -> Agent:
    """Return an agent with these required dependencies."""
    return an_agent(agent_id, capabilities=capabilities(edges))


def capabilities(edges: Iterable[Edge]) -> list[dict[str, Any]]:
    """Return the capabilities of an agent with these required dependencies."""
    needs: dict[str, list[dict[str, Any]]] = {}
    for name, needed in edges:
        needs.setdefault(name, []).append({"capability": needed, "required": True})
    return [
        {"name": name, "function_name": f"f_{at}", "dependencies": found}
        for at, (name, found) in enumerate(needs.items())
    ]


def refused(agents: Iterable[Agent], agent_id: str, *edges: Edge) -> str:
    """Return what an agent is told that brings these edges."""
    with pytest.raises(UnprocessableRequest) as caught:
        reject_cycles(view_of(*agents), agent_id, edges)
    assert [detail.field for detail in caught.value.details] == ["dependencies"]
    return str(caught.value)


def test_a_circle_is_named_from_the_edge_that_closes_it() -> None:
    """Each capability in it, and the first again."""
    mesh = [requiring("a-1", ("a", "b")), requiring("b-1", ("b", "c"), ("b", "x"))]

    assert refused(mesh, "c-1", ("c", "a")) == "required dependency cycle: c → a → b → c"
    assert refused(mesh, "c-1", ("c", "z"), ("d", "e"), ("z", "b")).endswith("c → z → b → c")
    assert refused([], "a-1", ("a", "b"), ("b", "c"), ("c", "a")) == "required dependency cycle: a → b → c → a"


def test_what_needs_itself_is_a_circle() -> None:
    """Of one."""
    assert refused([], "a-1", ("a", "b"), ("c", "c")) == "required dependency cycle: c → c"


def test_of_several_circles_a_shortest_is_named() -> None:
    """It is easier to see what is wrong."""
    mesh = [requiring("m", ("b", "c"), ("c", "d"), ("d", "a"), ("b", "a"))]

    assert refused(mesh, "a-1", ("a", "b")) == "required dependency cycle: a → b → a"


def test_what_the_agent_had_before_does_not_count() -> None:
    """It may turn its edges round; what others hold as well stays."""
    mesh = [requiring("a-1", ("a", "b"), ("b", "c"))]

    reject_cycles(view_of(*mesh), "a-1", [("c", "b"), ("b", "a")])
    assert "b → a → b" in refused([*mesh, requiring("a-2", ("a", "b"))], "a-1", ("b", "a"))


@pytest.mark.parametrize(
    "edges",
    [[("p", "q")], [("p", "x")], [("p", "x"), ("q", "p")], [("p", "x"), ("p", "y")]],
    ids=["elsewhere", "leads into it", "a chain into it", "twice into it"],
)
def test_a_circle_elsewhere_blocks_nobody(edges: list[Edge]) -> None:
    """Whatever stands in the store: only who brings an edge of it is refused."""
    mesh = [requiring("bad-1", ("x", "y")), requiring("bad-2", ("y", "x")), requiring("self", ("y", "y"))]

    reject_cycles(view_of(*mesh), "new", edges)
    assert "z → x → y → z" in refused([*mesh, requiring("bad-3", ("y", "z"))], "new", ("z", "x"))


def chain(length: int, name: str = "n") -> list[Agent]:
    """Return agents of which each needs the next, so many capabilities in all."""
    return [requiring(f"{name}-{at}", (f"{name}{at}", f"{name}{at + 1}")) for at in range(length - 1)]


def test_a_chain_is_as_long_as_it_may_be_and_no_longer() -> None:
    """Wherever the new edge lies in it."""
    fits, over = chain(MAX_DEPENDENCY_DEPTH - 1), chain(MAX_DEPENDENCY_DEPTH)
    for edge in ("top", "n0"), (f"n{MAX_DEPENDENCY_DEPTH - 2}", "bottom"):
        reject_cycles(view_of(*fits), "new", [edge])
    halves = [*chain(32, "n"), *chain(32, "m")]
    reject_cycles(view_of(*halves), "new", [("n31", "m0")])

    assert "capabilities deep" in refused(over, "new", ("top", "n0"))
    assert "capabilities deep" in refused(over, "new", (f"n{MAX_DEPENDENCY_DEPTH - 1}", "bottom"))
    assert "capabilities deep" in refused([*halves, requiring("more", ("m31", "end"))], "new", ("n31", "m0"))
    assert "capabilities deep" in refused(chain(MAX_DEPENDENCY_DEPTH - 1), "new", ("t1", "n0"), ("t2", "t1"))


def test_two_chains_that_do_not_meet_are_not_one() -> None:
    """An agent at the end of a long one and at the begin of another was refused: their lengths were added."""
    mesh = [*chain(40, "n"), *chain(40, "m")]

    reject_cycles(view_of(*mesh), "new", [("n39", "bottom"), ("top", "m0")])


def test_a_chain_that_is_replaced_is_not_counted() -> None:
    """The edges an agent gives up lead nowhere, up or down."""
    mesh = [*chain(32, "n"), *chain(32, "m"), requiring("new", ("n31", "m0"))]

    reject_cycles(view_of(*mesh), "new", [("m31", "n0")])


EDGES = st.lists(st.tuples(*[st.sampled_from("abcdef")] * 2), max_size=6, unique=True)


@given(st.lists(EDGES, max_size=5), EDGES.filter(bool))
def test_exactly_those_are_refused_who_are_in_a_circle_of_their_own_making(
    held: list[list[Edge]], edges: list[Edge]
) -> None:
    """Compared with one look at all that there would be."""
    mesh = [requiring(f"h{at}", *each) for at, each in enumerate(held)]
    graph: dict[str, list[str]] = {}
    for name, needed in {*edges, *(edge for each in held for edge in each)}:
        graph.setdefault(name, []).append(needed)
    together = [set(circle) for circle in find_cycles(graph)]
    closes = any(name == needed or any({name, needed} <= circle for circle in together) for name, needed in edges)

    if not closes:
        reject_cycles(view_of(*mesh), "new", edges)
        return
    _, _, way = refused(mesh, "new", *edges).partition(": ")
    names = way.split(" → ")
    steps = [*pairwise(names)]
    assert names[0] == names[-1]
    assert steps[0] in edges
    assert all(needed in graph[name] for name, needed in steps)


def test_a_large_mesh_is_checked_in_a_moment() -> None:
    """Ten thousand edges, a thousand new ones: each is looked at once, not once for each capability."""
    mesh = [
        requiring(
            f"agent-{at}", *((f"c{at % 50}-{each}", f"c{at % 50 + 1}-{(each * 7 + at) % 40}") for each in range(20))
        )
        for at in range(500)
    ]
    view = view_of(*mesh)
    loop = asyncio.new_event_loop()
    began = loop.time()

    reject_cycles(view, "new", [(f"x{at}", f"c0-{at % 40}") for at in range(1000)])

    assert loop.time() - began < 2
    loop.close()


class Replica:
    """A store, a feed, and what lets registrations in, as a process has them."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.store = Store(endpoint_from_url(url), settings, lambda _script, _seconds: None)
        self.feed = make_reflector(self.store.change_log)
        self.edges = CycleGuard(self.feed, self.store.agents)
        nothing = cast(Any, None)
        self.registrations = RegistrationService(self.store.agents, self.edges, nothing, settings, {})
        self._following = asyncio.create_task(self.feed.run())

    async def register(self, agent_id: str, *edges: Edge) -> RegistrationResult:
        """Register an agent with these required dependencies."""
        # More capabilities than a request may have, so that the limit of the edges is the one that is reached.
        spec = a_spec(agent_id, capabilities=capabilities(edges))
        return await self.registrations.register(replace(parse_registration(a_registration(agent_id)), spec=spec))

    async def close(self) -> None:
        """Stop following, and close the connections."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.store.close()


@contextlib.asynccontextmanager
async def replicas(url: str, settings: Settings, count: int = 2) -> AsyncIterator[list[Replica]]:
    """Provide replicas on one server that have filled."""
    found = [Replica(url, settings) for _ in range(count)]
    try:
        await async_wait_until(lambda: all(each.feed.view is not None for each in found), description="all are filled")
        yield found
    finally:
        for each in found:
            await each.close()


async def test_two_halves_of_a_circle_never_both_get_in(redis_url: str, settings: Settings) -> None:
    """A hundred times at once through two replicas; upstream lets both in at the first try."""
    async with replicas(redis_url, settings) as (one, two):
        for number in range(100):
            a, b = f"a{number}", f"b{number}"
            done = await asyncio.gather(
                one.register(f"{a}-1", (a, b)), two.register(f"{b}-1", (b, a)), return_exceptions=True
            )
            let_in = [each for each in done if isinstance(each, RegistrationResult)]
            told = [str(each) for each in done if isinstance(each, UnprocessableRequest)]
            assert len(let_in) == len(told) == 1, done
            assert told[0] in (
                f"required dependency cycle: {a} → {b} → {a}",
                f"required dependency cycle: {b} → {a} → {b}",
            )


async def test_many_new_edges_at_once_all_get_in(redis_url: str, settings: Settings, raw: redis.Redis) -> None:
    """Two hundred of two replicas: none is told to come again."""
    async with replicas(redis_url, settings) as both:
        done = await asyncio.gather(*(both[at % 2].register(f"agent-{at}", (f"c{at}", f"d{at}")) for at in range(200)))

    assert {each.outcome for each in done} == {"created"}
    assert raw.hget("{mesh}:required_edges", "revision") == "200"


async def test_a_known_edge_needs_no_check(redis_url: str, settings: Settings, raw: redis.Redis) -> None:
    """A second agent with it is let in at once, as are all that come back."""
    async with replicas(redis_url, settings) as (one, two):
        await one.register("a-1", ("a", "b"))
        calls: Any = raw.info("commandstats")["cmdstat_evalsha"]["calls"]

        await two.register("a-2", ("a", "b"))
        await two.register("a-1", ("a", "b"))

        assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] <= calls + 3
    assert raw.hgetall("{mesh}:required_edges") == {"a b": "2", "revision": "1"}


async def test_too_many_are_refused_before_anything_is_sent(redis_url: str, settings: Settings) -> None:
    """Also where others have each of them, so that none is new."""
    async with replicas(redis_url, settings, 1) as (one,):
        edges = [(f"c{at}", "d") for at in range(MAX_REQUIRED_EDGES + 1)]
        await one.register("half", *edges[:600])
        await one.register("rest", *edges[600:])
        version = one.store.agents.last_written_version

        with pytest.raises(UnprocessableRequest, match="at most 1,000 required"):
            await one.register("all", *edges)

        assert one.store.agents.last_written_version == version
        await one.register("most", *edges[:MAX_REQUIRED_EDGES])


async def test_who_waits_too_long_for_its_turn_is_told_to_come_again(
    redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks come one after another, and each may wait for the store: nobody may stand in that line for ever."""
    monkeypatch.setattr(edges_module, "_LOCK_TIMEOUT_S", 0.05)
    async with replicas(redis_url, settings, 1) as (one,):
        await one.edges._lock.acquire()
        with pytest.raises(StoreUnavailable) as caught:
            await one.register("a-1", ("a", "b"))
        one.edges._lock.release()

        assert (caught.value.reason, caught.value.outcome) == ("queue_full", "not_sent")
        assert (await one.register("a-1", ("a", "b"))).outcome == "created"
