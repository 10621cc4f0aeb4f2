"""The cycle guard: no two registrations form a cycle of required dependencies, and a cycle blocks no other agent."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
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
from registry.model.dependency_graph import Edge
from registry.model.registration.parse import parse_registration
from registry.service.registration.registration_service import RegistrationService
from registry.service.resolution import cycle_guard
from registry.service.resolution.cycle_guard import (
    MAX_DEPENDENCY_DEPTH,
    MAX_REQUIRED_EDGES,
    CycleGuard,
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


def requiring(agent_id: str, *edges: Edge, namespace: str = "n") -> Agent:
    """Return an agent with these required dependencies; the namespace of one is its own unless it is named."""
    return an_agent(agent_id, namespace=namespace, capabilities=capabilities(edges))


def capabilities(edges: Iterable[Edge]) -> list[dict[str, Any]]:
    """Return the capabilities of an agent with these required dependencies."""
    required: dict[str, list[dict[str, Any]]] = {}
    for name, needed in edges:
        *named, capability = needed.split("/")
        required.setdefault(name, []).append(
            {"capability": capability, "required": True} | ({"namespace": named[0]} if named else {})
        )
    return [
        {"name": name, "function_name": f"f_{at}", "dependencies": dependencies}
        for at, (name, dependencies) in enumerate(required.items())
    ]


def accept(agents: Iterable[Agent], agent_id: str, *edges: Edge, namespace: str = "n") -> None:
    """Check a registration with these edges; raise UnprocessableRequest if it is rejected."""
    spec = requiring(agent_id, *edges, namespace=namespace).indexed
    reject_cycles(view_of(*agents), agent_id, set(spec.required_edges))


def rejection(agents: Iterable[Agent], agent_id: str, *edges: Edge, namespace: str = "n") -> str:
    """Return the error for a registration with these edges, without the namespace `n`."""
    with pytest.raises(UnprocessableRequest) as caught:
        accept(agents, agent_id, *edges, namespace=namespace)
    assert [detail.field for detail in caught.value.details] == ["dependencies"]
    return re.sub(r"\bn/", "", str(caught.value))


def test_a_cycle_is_reported_from_the_edge_that_closes_it() -> None:
    """The message lists each capability of the cycle, then the first one again."""
    mesh = [requiring("a-1", ("a", "b")), requiring("b-1", ("b", "c"), ("b", "x"))]

    assert rejection(mesh, "c-1", ("c", "a")) == "required dependency cycle: c → a → b → c"
    assert rejection(mesh, "c-1", ("c", "z"), ("d", "e"), ("z", "b")).endswith("c → z → b → c")
    assert rejection([], "a-1", ("a", "b"), ("b", "c"), ("c", "a")) == "required dependency cycle: a → b → c → a"


def test_a_capability_that_requires_itself_is_a_cycle() -> None:
    """It is the shortest cycle."""
    assert rejection([], "a-1", ("a", "b"), ("c", "c")) == "required dependency cycle: c → c"


def test_the_shortest_of_several_cycles_is_reported() -> None:
    """A short cycle is easier to repair."""
    mesh = [requiring("m", ("b", "c"), ("c", "d"), ("d", "a"), ("b", "a"))]

    assert rejection(mesh, "a-1", ("a", "b")) == "required dependency cycle: a → b → a"


def test_the_previous_edges_of_an_agent_do_not_count() -> None:
    """An agent may reverse its own edges, unless another agent has them too."""
    mesh = [requiring("a-1", ("a", "b"), ("b", "c"))]

    accept(mesh, "a-1", ("c", "b"), ("b", "a"))
    assert "b → a → b" in rejection([*mesh, requiring("a-2", ("a", "b"))], "a-1", ("b", "a"))


@pytest.mark.parametrize(
    "edges",
    [[("p", "q")], [("p", "x")], [("p", "x"), ("q", "p")], [("p", "x"), ("p", "y")]],
    ids=["elsewhere", "leads into it", "a chain into it", "twice into it"],
)
def test_an_existing_cycle_does_not_block_other_agents(edges: list[Edge]) -> None:
    """Only a registration with an edge of a cycle is rejected."""
    mesh = [requiring("bad-1", ("x", "y")), requiring("bad-2", ("y", "x")), requiring("self", ("y", "y"))]

    accept(mesh, "new", *edges)
    assert "z → x → y → z" in rejection([*mesh, requiring("bad-3", ("y", "z"))], "new", ("z", "x"))


def linear_chain(length: int, name: str = "n") -> list[Agent]:
    """Return agents that require each other in a row; the row has `length` capabilities."""
    return [requiring(f"{name}-{at}", (f"{name}{at}", f"{name}{at + 1}")) for at in range(length - 1)]


def test_a_chain_of_the_maximum_depth_is_accepted() -> None:
    """One capability more is rejected, wherever the new edge lies."""
    fits, over = linear_chain(MAX_DEPENDENCY_DEPTH - 1), linear_chain(MAX_DEPENDENCY_DEPTH)
    for edge in ("top", "n0"), (f"n{MAX_DEPENDENCY_DEPTH - 2}", "bottom"):
        accept(fits, "new", edge)
    halves = [*linear_chain(32, "n"), *linear_chain(32, "m")]
    accept(halves, "new", ("n31", "m0"))

    assert "capabilities deep" in rejection(over, "new", ("top", "n0"))
    assert "capabilities deep" in rejection(over, "new", (f"n{MAX_DEPENDENCY_DEPTH - 1}", "bottom"))
    assert "capabilities deep" in rejection([*halves, requiring("more", ("m31", "end"))], "new", ("n31", "m0"))
    assert "capabilities deep" in rejection(linear_chain(MAX_DEPENDENCY_DEPTH - 1), "new", ("t1", "n0"), ("t2", "t1"))


def test_separate_chains_are_not_added_up() -> None:
    """An agent at the end of one chain and at the start of another was rejected, because the depths were added."""
    mesh = [*linear_chain(40, "n"), *linear_chain(40, "m")]

    accept(mesh, "new", ("n39", "bottom"), ("top", "m0"))


def test_replaced_edges_are_not_counted() -> None:
    """They count neither above nor below the new edges."""
    mesh = [*linear_chain(32, "n"), *linear_chain(32, "m"), requiring("new", ("n31", "m0"))]

    accept(mesh, "new", ("m31", "n0"))


NAMESPACES = st.sampled_from("nm")
REQUIRED = st.tuples(st.sampled_from(["", "", "n/", "m/", "*/"]), st.sampled_from("abcde")).map("".join)
EDGES = st.lists(st.tuples(st.sampled_from("abcde"), REQUIRED), max_size=6, unique=True)


@given(st.lists(st.tuples(NAMESPACES, EDGES), max_size=5), EDGES.filter(bool))
def test_a_registration_is_rejected_exactly_if_it_closes_a_cycle(
    others: list[tuple[str, list[Edge]]], edges: list[Edge]
) -> None:
    """The expected result is computed from the whole graph, with an edge from any namespace to each of them."""
    mesh = [requiring(f"h{at}", *each, namespace=namespace) for at, (namespace, each) in enumerate(others)]
    own = {*requiring("new", *edges).indexed.required_edges}
    graph = {f"*/{name}": [f"n/{name}", f"m/{name}"] for name in "abcde"}
    for name, needed in own.union(*(agent.indexed.required_edges for agent in mesh)):
        graph.setdefault(name, []).append(needed)
    together = [set(cycle) for cycle in find_cycles(graph)]
    closes = any(name == needed or any({name, needed} <= cycle for cycle in together) for name, needed in own)

    if not closes:
        accept(mesh, "new", *edges)
        return
    with pytest.raises(UnprocessableRequest, match="required dependency cycle: ") as caught:
        accept(mesh, "new", *edges)
    names = str(caught.value).partition(": ")[2].split(" → ")
    steps = [*pairwise(names)]
    assert names[0] == names[-1]
    assert steps[0] in own
    assert all(needed in graph[name] for name, needed in steps)


def test_an_agent_of_another_namespace_does_not_block_dependencies() -> None:
    """Attack T6: an agent in `evil` provides `ledger` and requires `billing`; so no `billing` could require it."""
    mesh = [
        requiring("evil-1", ("ledger", "billing"), ("ledger", "*/billing"), ("x", "finance/billing"), namespace="evil")
    ]

    accept(mesh, "billing-1", ("billing", "ledger"), namespace="finance")
    assert "finance/billing → finance/ledger → finance/billing" in rejection(
        [*mesh, requiring("ledger-1", ("ledger", "billing"), namespace="finance")],
        "billing-1",
        ("billing", "ledger"),
        namespace="finance",
    )


def test_a_dependency_on_any_namespace_leads_to_the_requirements_of_all() -> None:
    """A provider in any namespace satisfies it, so a cycle through one could never be resolved."""
    mesh = [requiring("m-1", ("b", "n/a"), namespace="m")]

    assert rejection(mesh, "n-1", ("a", "*/b")) == "required dependency cycle: a → */b → m/b → a"
    assert rejection([], "n-1", ("a", "*/a")) == "required dependency cycle: a → */a → a"
    accept(mesh, "n-1", ("a", "b"))


def test_the_depth_of_another_namespace_does_not_count() -> None:
    """A long chain in one namespace blocks no other; in a chain through any namespace each capability counts once."""
    chain = linear_chain(MAX_DEPENDENCY_DEPTH)
    accept(chain, "new", ("top", "n0"), namespace="m")
    through_any = [
        requiring(f"a-{at}", (f"n{at}", f"*/n{at + 1}"), namespace="nm"[at % 2])
        for at in range(MAX_DEPENDENCY_DEPTH - 1)
    ]
    accept(through_any[1:], "new", ("n0", "*/n1"))
    accept(through_any[:-1], "new", (f"n{MAX_DEPENDENCY_DEPTH - 2}", "*/bottom"))

    assert "capabilities deep" in rejection(through_any, "new", ("top", "*/n0"))
    last = MAX_DEPENDENCY_DEPTH - 1
    assert "capabilities deep" in rejection(through_any, "new", (f"n{last}", "*/bottom"), namespace="nm"[last % 2])


class CountingEdges(dict[str, dict[str, int]]):
    """Edges by capability, which counts how often each capability is looked up."""

    def __init__(self, edges: Mapping[str, dict[str, int]]) -> None:
        super().__init__(edges)
        self.lookups: Counter[str] = Counter()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the edges of a capability."""
        self.lookups[name] += 1
        return super().get(name, default)


def test_each_capability_of_a_large_mesh_is_examined_once() -> None:
    """With 10,000 edges and 1,000 new ones."""
    mesh = [
        requiring(
            f"agent-{at}", *((f"c{at % 50}-{each}", f"c{at % 50 + 1}-{(each * 7 + at) % 40}") for each in range(20))
        )
        for at in range(500)
    ]
    view = view_of(*mesh)
    view.required_edges = edges = CountingEdges(view.required_edges)

    reject_cycles(view, "new", [(f"n/x{at}", f"n/c0-{at % 40}") for at in range(1000)])

    assert len(edges.lookups) > 2000
    assert max(edges.lookups.values()) == 1


class Replica:
    """The store, the reflector and the registration service of one process."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.store = Store(endpoint_from_url(url), settings, lambda _script, _seconds: None)
        self.reflector = make_reflector(self.store.change_log)
        self.edges = CycleGuard(self.reflector, self.store.agents)
        nothing = cast(Any, None)
        self.registrations = RegistrationService(self.store.agents, self.edges, nothing, settings, {})
        self._following = asyncio.create_task(self.reflector.run())

    async def register(self, agent_id: str, *edges: Edge) -> RegistrationResult:
        """Register an agent with these required dependencies."""
        # The spec has more capabilities than a request may have, so that the limit of the edges is reached first.
        spec = a_spec(agent_id, capabilities=capabilities(edges))
        return await self.registrations.register(replace(parse_registration(a_registration(agent_id)), spec=spec))

    async def close(self) -> None:
        """Stop the reflector and close the connections."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.store.close()


@contextlib.asynccontextmanager
async def running_replicas(url: str, settings: Settings, count: int = 2) -> AsyncIterator[list[Replica]]:
    """Provide replicas on one server with filled caches."""
    running = [Replica(url, settings) for _ in range(count)]
    try:
        await async_wait_until(
            lambda: all(each.reflector.view is not None for each in running), description="all are filled"
        )
        yield running
    finally:
        for each in running:
            await each.close()


async def test_two_halves_of_a_cycle_are_never_both_accepted(redis_url: str, settings: Settings) -> None:
    """Two replicas receive them at once, a hundred times; upstream accepts both at the first try."""
    async with running_replicas(redis_url, settings) as (one, two):
        for number in range(100):
            a, b = f"a{number}", f"b{number}"
            results = await asyncio.gather(
                one.register(f"{a}-1", (a, b)), two.register(f"{b}-1", (b, a)), return_exceptions=True
            )
            accepted = [each for each in results if isinstance(each, RegistrationResult)]
            rejected = [str(each) for each in results if isinstance(each, UnprocessableRequest)]
            assert len(accepted) == len(rejected) == 1, results
            assert rejected[0] in (
                f"required dependency cycle: default/{a} → default/{b} → default/{a}",
                f"required dependency cycle: default/{b} → default/{a} → default/{b}",
            )


async def test_many_simultaneous_edges_are_all_accepted(
    redis_url: str, settings: Settings, redis_client: redis.Redis
) -> None:
    """No registration has to be retried."""
    async with running_replicas(redis_url, settings) as both:
        results = await asyncio.gather(
            *(both[at % 2].register(f"agent-{at}", (f"c{at}", f"d{at}")) for at in range(200))
        )

    assert {each.outcome for each in results} == {"created"}
    assert redis_client.hget("{mesh}:required_edges", "revision") == "200"


async def test_a_known_edge_needs_no_check(redis_url: str, settings: Settings, redis_client: redis.Redis) -> None:
    """A second agent with the edge and a new registration of the first are accepted at once."""
    async with running_replicas(redis_url, settings) as (one, two):
        await one.register("a-1", ("a", "b"))
        calls: Any = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]

        await two.register("a-2", ("a", "b"))
        await two.register("a-1", ("a", "b"))

        assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] <= calls + 3
    assert redis_client.hgetall("{mesh}:required_edges") == {"default/a default/b": "2", "revision": "1"}


async def test_too_many_edges_are_rejected_before_the_store_is_called(redis_url: str, settings: Settings) -> None:
    """Edges that the store already has count, too."""
    async with running_replicas(redis_url, settings, 1) as (one,):
        edges = [(f"c{at}", "d") for at in range(MAX_REQUIRED_EDGES + 1)]
        await one.register("half", *edges[:600])
        await one.register("rest", *edges[600:])
        version = (await one.store.change_log.open()).version

        with pytest.raises(UnprocessableRequest, match="at most 1,000 required"):
            await one.register("all", *edges)

        assert (await one.store.change_log.open()).version == version
        await one.register("most", *edges[:MAX_REQUIRED_EDGES])


async def test_a_registration_that_waits_too_long_for_the_lock_is_rejected(
    redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks run one at a time and may wait for the store; the caller can retry after the timeout."""
    monkeypatch.setattr(cycle_guard, "CHECK_TIMEOUT_S", 0.05)
    async with running_replicas(redis_url, settings, 1) as (one,):
        await one.edges._lock.acquire()
        with pytest.raises(StoreUnavailable) as caught:
            await one.register("a-1", ("a", "b"))
        one.edges._lock.release()

        assert (caught.value.reason, caught.value.outcome) == ("queue_full", "not_sent")
        assert (await one.register("a-1", ("a", "b"))).outcome == "created"


async def test_edges_of_others_during_each_check_delay_a_registration_only(
    redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other replica adds an edge after each of a hundred checks; the next check is at its revision."""
    async with running_replicas(redis_url, settings) as (one, two):
        check, numbers = one.edges.check, iter(range(100))

        async def check_and_lose(agent_id: str, edges: Collection[Edge]) -> str:
            revision = await check(agent_id, edges)
            if (number := next(numbers, None)) is not None:
                await two.register(f"other-{number}", (f"c{number}", f"d{number}"))
            return revision

        monkeypatch.setattr(one.edges, "check", check_and_lose)

        assert (await one.register("a-1", ("a", "b"))).outcome == "created"
    assert next(numbers, None) is None
