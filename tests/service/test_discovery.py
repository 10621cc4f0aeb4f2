"""Reads as a service: which records a query selects, and that an answer is of one version, come what may."""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from registry.cache.feed import Feed
from registry.cache.view import View
from registry.errors import MalformedRequest, NotReady, StoreUnavailable, UnknownAgent
from registry.model.agent import Agent
from registry.model.change import Kind, Position
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery import Discovery, Listing
from registry.store.agents import Agents, Heard
from tests.support.builders import a_change, an_agent
from tests.support.eventually import async_wait_until


class PlainFeed:
    """A feed that holds one view, and moves it on when the test writes."""

    def __init__(self, *agents: Agent) -> None:
        self.view: View | None = None
        self.following = True
        self.behind = 0.0
        self.away = False
        self._filled = View(Position(1, "h"))
        for agent in agents:
            self.write(agent, "add")

    def fresh(self) -> "asyncio.Future[View]":
        """Return the view."""
        future: asyncio.Future[View] = asyncio.get_running_loop().create_future()
        if self.away:
            future.set_exception(StoreUnavailable("away"))
        else:
            self.view = self._filled
            future.set_result(self._filled)
        return future

    def write(self, agent: Agent, kind: Kind) -> None:
        """Let one change come in."""
        self._filled.apply(a_change(agent.version, kind, agent), time.monotonic())


class Heartbeats:
    """The one call of the store that reads need: last heartbeats, told when the test says so."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.hold: asyncio.Event | None = None
        self.away = False

    def last_heard(self, agent_ids: Sequence[str]) -> "asyncio.Future[Heard]":
        """Return each agent's last heartbeat."""
        self.asked.append(list(agent_ids))
        if self.away:
            failed: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("away"))
            return failed
        return asyncio.create_task(self._answer(agent_ids))

    async def _answer(self, agent_ids: Sequence[str]) -> Heard:
        if self.hold is not None:
            await self.hold.wait()
        return Heard([self.at.get(agent_id) for agent_id in agent_ids], 1_000)


class Mesh:
    """A discovery over a plain feed."""

    def __init__(self, *agents: Agent) -> None:
        self.feed = PlainFeed(*agents)
        self.heartbeats = Heartbeats()
        self.discovery = Discovery(cast(Feed, self.feed), cast(Agents, self.heartbeats))

    async def found(self, version: int | None = None, **query: Any) -> list[str]:
        """Return the ids a query finds."""
        return [record.agent.id for record in (await self.discovery.agents(AgentQuery(**query), version)).records]

    async def grow_old(self) -> None:
        """Let every last heartbeat be older than a list may show."""
        for record in (await self.feed.fresh()).records.values():
            record.heard_at = time.monotonic() - 60

    async def read_while(self, change: Callable[[], None], query: AgentQuery) -> Listing:
        """Return a list during which a change comes in, while last heartbeats are asked for."""
        await self.grow_old()
        self.heartbeats.hold = asyncio.Event()
        reading = asyncio.create_task(self.discovery.agents(query))
        await async_wait_until(lambda: self.heartbeats.asked, description="the heartbeats are asked for")
        change()
        self.heartbeats.hold.set()
        return await reading


def capabilities(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    """Return capabilities of these names and versions."""
    return [{"name": name, "version": version} for name, version in pairs]


SPREAD = (
    an_agent("a", 2, capabilities=capabilities(("read", "1.0.0"), ("write", "2.0.0")), namespace="n1"),
    an_agent("b", 3, "degraded", capabilities=capabilities(("read", "2.0.0")), labels={"env": "prod"}),
    an_agent("c", 4, "pending", capabilities=capabilities(("write", "3.0.0-rc.1")), labels={"env": "prod", "k": ""}),
    an_agent("d", 5, "expired", namespace="n1"),
)

SELECTS: list[tuple[dict[str, Any], str]] = [
    ({}, "bcad"),
    ({"status": "unhealthy"}, "bd"),
    ({"status": "offline"}, "d"),
    ({"status": "healthy"}, "a"),
    ({"namespace": "default"}, "bc"),
    ({"capabilities": ("read",)}, "ba"),
    ({"capabilities": ("read", "write")}, "a"),
    ({"capabilities": ("read", "read")}, "ba"),
    ({"capabilities": ("nothing",)}, ""),
    # All that is said of capabilities is said of one and the same one.
    ({"capabilities": ("read",), "version_constraint": ">=2"}, "b"),
    ({"capabilities": ("read", "write"), "version_constraint": ">=2"}, ""),
    ({"capabilities": ("write",), "version_constraint": ">=2"}, "a"),
    ({"version_constraint": ">=2"}, "ba"),
    ({"version_constraint": ">=3.0.0-rc.1"}, "c"),
    ({"version_constraint": ">=9"}, ""),
    ({"labels": (("env", "prod"),)}, "bc"),
    ({"labels": (("env", "prod"), ("k", ""))}, "c"),
    ({"labels": (("k", "other"),)}, ""),
    ({"labels": (("env", "prod"),), "capabilities": ("read",), "status": "degraded", "namespace": "default"}, "b"),
]


@pytest.mark.parametrize(("query", "found"), SELECTS, ids=[str(query) for query, _ in SELECTS])
async def test_a_query_selects(query: dict[str, Any], found: str) -> None:
    """Every condition must hold; sorted by namespace, then id. Whichever index is narrowest, the answer is the same."""
    assert await Mesh(*SPREAD).found(**query) == list(found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (CapabilityQuery(), ["b.read", "c.write", "a.read", "a.write"]),
        (CapabilityQuery(name="write"), ["c.write", "a.write"]),
        (CapabilityQuery(agent_id="a"), ["a.read", "a.write"]),
        (CapabilityQuery(agent_id="a", name="read"), ["a.read"]),
        (CapabilityQuery(agent_id="z"), []),
        (CapabilityQuery(agent_status="unhealthy"), ["b.read"]),
        (CapabilityQuery(agent_namespace="n1", version_constraint=">1"), ["a.write"]),
    ],
)
async def test_a_capability_query_selects(query: CapabilityQuery, found: list[str]) -> None:
    """In the order of the agents, then as each lists them."""
    search = await Mesh(*SPREAD).discovery.capabilities(query)

    assert [f"{one.record.agent.id}.{one.capability.name}" for one in search.found] == found


async def test_a_bad_query_is_refused_before_anything_is_asked() -> None:
    """A status word or a constraint that does not exist costs no look."""
    mesh = Mesh(*SPREAD)

    queries: list[dict[str, Any]] = [{"status": "sleepy"}, {"version_constraint": "soon"}]
    for query in queries:
        with pytest.raises(MalformedRequest):
            await mesh.found(None, **query)

    assert mesh.heartbeats.asked == []


async def test_nobody_is_not_an_agent() -> None:
    """Asked by id: unknown, with the id; a question for its heartbeat that is on its way does no harm."""
    with pytest.raises(UnknownAgent) as unknown:
        await Mesh(*SPREAD).discovery.agent("z")

    assert unknown.value.agent_id == "z"


async def test_one_agent_is_shown_with_its_exact_heartbeat() -> None:
    """Asked of the store at each read, even when the memory is fresh."""
    mesh = Mesh(*SPREAD)
    for at in (10, 20):
        mesh.heartbeats.at["a"] = at
        assert (await mesh.discovery.agent("a")).record.heartbeat == at


async def test_from_memory_nothing_is_asked() -> None:
    """`resource_version=0`: no question to the store, for lists and for one agent."""
    mesh = Mesh(*SPREAD)
    await mesh.grow_old()

    assert await mesh.found(0) == list("bcad")
    assert (await mesh.discovery.agent("a", 0)).record.agent.id == "a"

    assert mesh.heartbeats.asked == []


async def test_before_the_first_fill_memory_is_not_ready() -> None:
    """A replica that holds nothing says so."""
    mesh = Mesh(*SPREAD)

    with pytest.raises(NotReady):
        await mesh.found(0)


async def test_lists_ask_only_for_heartbeats_that_are_old() -> None:
    """One question for all of them together, and not again within a second."""
    mesh = Mesh(*SPREAD)
    await mesh.grow_old()

    await mesh.found(status="unhealthy")
    await mesh.found(status="unhealthy")
    await mesh.found()

    assert [sorted(asked) for asked in mesh.heartbeats.asked] == [["b", "d"], ["a", "c"]]


@pytest.mark.parametrize(
    ("change", "kind", "found"),
    [
        (an_agent("a", 9, "degraded"), "modify", []),
        (an_agent("a", 9), "remove", []),
        (an_agent("b", 9, "healthy"), "modify", ["b", "a"]),
        (an_agent("e", 9, namespace="n1"), "add", ["a", "e"]),
    ],
    ids=["stopped matching", "was removed", "began to match", "is new"],
)
async def test_a_list_is_of_the_version_it_names(change: Agent, kind: Kind, found: list[str]) -> None:
    """The story: while heartbeats were asked for, the mesh moved on, and the list named the new version over old rows.

    A watch from that version would never have told what the rows had missed.
    """
    mesh = Mesh(*SPREAD)

    listing = await mesh.read_while(lambda: mesh.feed.write(change, kind), AgentQuery(status="healthy"))

    now = found if listing.version == 9 else ["a"]
    assert [record.agent.id for record in listing.records] == now
    assert all(record.agent.version <= listing.version for record in listing.records)


async def test_a_list_survives_a_refill_while_it_waits() -> None:
    """A view that was swapped meanwhile: the rows and the version are of one of the two, not of both."""
    mesh = Mesh(*SPREAD)
    refilled = View(Position(9, "h2"))
    refilled.put(an_agent("z", 9), None, time.monotonic())

    listing = await mesh.read_while(lambda: setattr(mesh.feed, "view", refilled), AgentQuery())

    ids = [record.agent.id for record in listing.records]
    assert (listing.version, ids) in [(5, list("bcad")), (9, ["z"])]


async def test_trouble_with_the_store_is_told_once() -> None:
    """Both questions of a read fail: the reader hears of one, and no failure is left for the log to find."""
    mesh = Mesh(*SPREAD)
    mesh.feed.away = mesh.heartbeats.away = True
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))

    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await mesh.discovery.agent("a")
        await asyncio.sleep(0)
    gc.collect()

    assert unheard == []


async def test_a_newer_version_than_there_is_is_no_answer() -> None:
    """Not older than N: after a look that did not find N, trouble that may pass."""
    mesh = Mesh(*SPREAD)

    with pytest.raises(StoreUnavailable) as ahead:
        await mesh.found(6)

    assert ahead.value.reason == "version_ahead"
    assert await mesh.found(5) == list("bcad")
