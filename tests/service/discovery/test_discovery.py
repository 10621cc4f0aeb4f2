"""Reads as a service: which records a query selects, and that an answer is of one version, come what may."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal, cast

import pytest

from registry.cache.reflector import Reflector
from registry.cache.view import Record, View
from registry.errors import MalformedRequest, NotReady, StoreUnavailable, UnknownAgent, VersionTooOld
from registry.model.agent import Agent
from registry.model.label_selector import LabelSelector
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.discovery import AgentList, ClientVersion, Discovery, Freshness, Page
from registry.service.discovery.rows import PlainRows
from registry.store.agents import Agents, LastHeartbeats
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import make_reflector, running_reflector


class Heartbeats:
    """The one call of the store that reads need: last heartbeats, told when the test says so."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.hold: asyncio.Event | None = None
        self.away = False

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return each agent's last heartbeat."""
        self.asked.append(list(agent_ids))
        if self.away:
            failed: asyncio.Future[LastHeartbeats] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("away"))
            return failed
        return asyncio.create_task(self._answer(agent_ids))

    async def _answer(self, agent_ids: Sequence[str]) -> LastHeartbeats:
        if self.hold is not None:
            await self.hold.wait()
        return LastHeartbeats([self.at.get(agent_id) for agent_id in agent_ids], 1_000)


class Mesh:
    """A discovery over a plain log, followed by a feed."""

    def __init__(self, log: FakeChangeLog, feed: Reflector) -> None:
        self.log = log
        self.feed = feed
        self.heartbeats = Heartbeats()
        self.discovery = Discovery(feed, cast(Agents, self.heartbeats))

    async def found(self, version: int | None = None, **query: Any) -> list[str]:
        """Return the ids a query finds."""
        listing = await self.discovery.agents(AgentQuery(**query), Freshness(version))
        return [record.agent.id for record in listing.records]

    async def grow_old(self) -> None:
        """Let every last heartbeat be older than a list may show."""
        for record in (await self.feed.wait_fresh()).records.values():
            record.heartbeat_read_at = time.monotonic() - 60

    async def read_while(self, change: Callable[[], Awaitable[object]], query: AgentQuery) -> AgentList:
        """Return a list during which something happens, while last heartbeats are asked for."""
        await self.grow_old()
        self.heartbeats.hold = asyncio.Event()
        reading = asyncio.create_task(self.discovery.agents(query))
        await async_wait_until(lambda: self.heartbeats.asked, description="the heartbeats are asked for")
        await change()
        self.heartbeats.hold.set()
        return await reading


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """Provide a mesh of the agents of `SPREAD`, at version 5."""
    log = FakeChangeLog()
    for agent in SPREAD:
        log.write(agent, "add")
    async with running_reflector(log) as feed:
        yield Mesh(log, feed)


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
    ({"selector": LabelSelector.from_labels({"env": "prod"})}, "bc"),
    ({"selector": LabelSelector.from_labels({"env": "prod", "k": ""})}, "c"),
    ({"selector": LabelSelector.from_labels({"k": "other"})}, ""),
    (
        {
            "selector": LabelSelector.from_labels({"env": "prod"}),
            "capabilities": ("read",),
            "status": "degraded",
            "namespace": "default",
        },
        "b",
    ),
]


@pytest.mark.parametrize(("query", "found"), SELECTS, ids=[str(query) for query, _ in SELECTS])
async def test_a_query_selects(mesh: Mesh, query: dict[str, Any], found: str) -> None:
    """Every condition must hold; sorted by namespace, then id. Whichever index is narrowest, the answer is the same."""
    assert await mesh.found(**query) == list(found)


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
async def test_a_capability_query_selects(mesh: Mesh, query: CapabilityQuery, found: list[str]) -> None:
    """In the order of the agents, then as each lists them."""
    search = await mesh.discovery.capabilities(query)

    assert [f"{one.record.agent.id}.{one.capability.name}" for one in search.matches] == found


async def test_a_bad_query_is_refused_before_anything_is_asked(mesh: Mesh) -> None:
    """A status word or a constraint that does not exist costs no look."""
    queries: list[dict[str, Any]] = [{"status": "sleepy"}, {"version_constraint": "soon"}]
    for query in queries:
        with pytest.raises(MalformedRequest):
            await mesh.found(None, **query)

    assert mesh.heartbeats.asked == []


async def test_nobody_is_not_an_agent(mesh: Mesh) -> None:
    """Asked by id: unknown, with the id; a question for its heartbeat that is on its way does no harm."""
    with pytest.raises(UnknownAgent) as unknown:
        await mesh.discovery.agent("z")

    assert unknown.value.agent_id == "z"


async def test_one_agent_is_shown_with_its_exact_heartbeat(mesh: Mesh) -> None:
    """Asked of the store at each read, even when the memory is fresh."""
    for at in (10, 20):
        mesh.heartbeats.at["a"] = at
        assert (await mesh.discovery.agent("a")).record.heartbeat == at


async def test_from_memory_nothing_is_asked(mesh: Mesh) -> None:
    """`resource_version=0`: no question to the store, for lists and for one agent."""
    await mesh.grow_old()

    assert await mesh.found(0) == list("bcad")
    assert (await mesh.discovery.agent("a", Freshness(0))).record.agent.id == "a"

    assert mesh.heartbeats.asked == []


async def test_before_the_first_fill_memory_is_not_ready() -> None:
    """A replica that holds nothing says so."""
    log = FakeChangeLog()

    with pytest.raises(NotReady):
        await Mesh(log, make_reflector(log)).found(0)


async def test_lists_ask_only_for_heartbeats_that_are_old(mesh: Mesh) -> None:
    """One question for all of them together, and not again within a second."""
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
async def test_a_list_is_of_the_version_it_names(
    mesh: Mesh, change: Agent, kind: Literal["add", "modify", "remove"], found: list[str]
) -> None:
    """The story: while heartbeats were asked for, the mesh moved on, and the list named the new version over old rows.

    A watch from that version would never have told what the rows had missed.
    """

    async def moves_on() -> None:
        before = mesh.log.agents.get(change.id)
        if kind != "modify" or before is None:
            mesh.log.write(change, kind)
        else:
            mesh.log.write_from(change, status_before=before.status, spec_before=before.spec)
        await mesh.feed.wait_fresh()

    listing = await mesh.read_while(moves_on, AgentQuery(status="healthy"))

    now = found if listing.version == 9 else ["a"]
    assert [record.agent.id for record in listing.records] == now
    assert all(record.agent.version <= listing.version for record in listing.records)


async def test_a_list_survives_a_refill_while_it_waits(mesh: Mesh) -> None:
    """A view that was swapped meanwhile: the rows and the version are of one of the two, not of both."""

    async def is_replaced() -> None:
        mesh.log.timeline, mesh.log.agents, mesh.log.changes = "h2", {}, [a_change(8, "new_timeline")]
        mesh.log.write(an_agent("z", 9), "add")
        await async_wait_until(lambda: mesh.feed.gaps and mesh.feed.fills > 1, description="the cache is filled anew")

    listing = await mesh.read_while(is_replaced, AgentQuery())

    ids = [record.agent.id for record in listing.records]
    assert (listing.version, ids) in [(5, list("bcad")), (9, ["z"])]


async def test_trouble_with_the_store_is_told_once(mesh: Mesh) -> None:
    """Both questions of a read fail: the reader hears of one, and no failure is left for the log to find."""
    await mesh.feed.wait_fresh()
    mesh.log.unavailable = mesh.heartbeats.away = True
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))

    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await mesh.discovery.agent("a")
        await asyncio.sleep(0)
    gc.collect()

    assert unheard == []


async def test_a_newer_version_than_there_is_is_no_answer(mesh: Mesh) -> None:
    """Not older than N: after a look that did not find N, trouble that may pass."""
    with pytest.raises(StoreUnavailable) as ahead:
        await mesh.found(6)

    assert ahead.value.reason == "version_ahead"
    assert await mesh.found(5) == list("bcad")


async def test_an_exact_version_is_answered_while_the_answer_is_as_it_was_then(mesh: Mesh) -> None:
    """Also by a replica that was never asked before; the rows are of the version asked for, or there are none."""
    mesh.log.write(an_agent("e", 6, "expired", namespace="n9"), "add")

    for version in (5, 6):
        listing = await mesh.discovery.agents(AgentQuery(namespace="n1"), Freshness(version, exact=True))
        assert (listing.version, [record.agent.id for record in listing.records]) == (version, ["a", "d"])
    with pytest.raises(VersionTooOld):
        await mesh.discovery.agents(AgentQuery(status="expired"), Freshness(5, exact=True))
    with pytest.raises(VersionTooOld):
        await mesh.discovery.agents(
            AgentQuery(status="expired"), Freshness(5, exact=True), client_version=ClientVersion("h1", 6)
        )


async def test_an_exact_version_of_the_capabilities_is_the_one_held_or_none(mesh: Mesh) -> None:
    """They are not kept, so no older one can be told to be the same."""
    search = await mesh.discovery.capabilities(CapabilityQuery(name="read"), Freshness(5, exact=True))
    assert (search.version, len(search.matches)) == (5, 2)

    mesh.log.write(an_agent("e", 6), "add")
    await mesh.feed.wait_fresh()
    with pytest.raises(VersionTooOld):
        await mesh.discovery.capabilities(CapabilityQuery(name="read"), Freshness(5, exact=True))


@pytest.mark.parametrize(
    ("known", "unchanged"),
    [
        (ClientVersion("h1", 5), True),
        (ClientVersion("h1", 6), True),
        (ClientVersion("h1", 4), False),
        (ClientVersion("h1", 7), False),
        (ClientVersion("h2", 6), False),
    ],
)
async def test_what_a_caller_has_is_compared_by_version_and_history(
    mesh: Mesh, known: ClientVersion, *, unchanged: bool
) -> None:
    """Unchanged since a version at which nothing that concerns it had still to come; never of another history."""
    mesh.log.write(an_agent("e", 6, namespace="n9"), "add")

    listing = await mesh.discovery.agents(AgentQuery(namespace="n1"), client_version=known)

    assert listing.unchanged is unchanged
    assert [record.agent.id for record in listing.records] == ([] if unchanged else ["a", "d"])


async def test_pages_make_a_whole(mesh: Mesh) -> None:
    """Each goes on after the last row of the one before; only that page's heartbeats are asked for."""
    await mesh.grow_old()

    first = await mesh.discovery.agents(AgentQuery(), page=Page(3))
    assert sorted(mesh.heartbeats.asked[0]) == ["a", "b", "c"]
    second = await mesh.discovery.agents(AgentQuery(), page=Page(3, first.next_after, first.version))

    assert [record.agent.id for record in (*first.records, *second.records)] == list("bcad")
    assert (first.next_after is None, second.next_after) == (False, None)


async def test_what_takes_long_to_show_is_prepared_in_turns_and_once(mesh: Mesh) -> None:
    """A list in which one agent needed very much kept the replica from everything else for half a second.

    What changes while rows are prepared is in the list.
    """
    prepared: list[str] = []

    class Rows(PlainRows):
        async def prepare(self, _view: View, record: Record) -> None:
            prepared.append(record.agent.id)
            mesh.log.write(an_agent("new", 7), "add")
            await mesh.feed.wait_fresh()

    discovery = Discovery(mesh.feed, cast(Agents, mesh.heartbeats), Rows())
    mesh.log.write(an_agent("large", 6, metadata={"x": "y" * 2_000}), "add")

    listing = await discovery.agents(AgentQuery())
    assert prepared == ["large"]
    assert [record.agent.id for record in listing.records] == ["b", "c", "large", "new", "a", "d"]
    assert listing.rows
    await discovery.agents(AgentQuery())

    assert prepared == ["large"]
