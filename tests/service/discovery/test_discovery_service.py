"""Lists and single agents: which records a query selects, and that a list shows one version."""

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
from registry.service.discovery.discovery_service import AgentList, ClientVersion, Discovery, Freshness, Page
from registry.service.discovery.list_rows import RowFormat
from registry.store.agents import Agents, LastHeartbeats
from tests.support.builders import a_change, an_agent
from tests.support.fake_change_log import FakeChangeLog
from tests.support.polling import async_wait_until
from tests.support.reflectors import make_reflector, running_reflector


class FakeAgentStore:
    """Returns last heartbeats, the one call of the store that reads make; the test can delay or fail it."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self.requests: list[list[str]] = []
        self.gate: asyncio.Event | None = None
        self.unavailable = False

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return each agent's last heartbeat."""
        self.requests.append(list(agent_ids))
        if self.unavailable:
            failed: asyncio.Future[LastHeartbeats] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("away"))
            return failed
        return asyncio.create_task(self._respond(agent_ids))

    async def _respond(self, agent_ids: Sequence[str]) -> LastHeartbeats:
        if self.gate is not None:
            await self.gate.wait()
        return LastHeartbeats([self.times.get(agent_id) for agent_id in agent_ids], 1_000)


class Mesh:
    """A discovery whose cache follows a fake change log."""

    def __init__(self, log: FakeChangeLog, reflector: Reflector) -> None:
        self.log = log
        self.reflector = reflector
        self.store = FakeAgentStore()
        self.discovery = Discovery(reflector, cast(Agents, self.store))

    async def found(self, version: int | None = None, **query: Any) -> list[str]:
        """Return the ids of the agents that match a query."""
        listing = await self.discovery.agents(AgentQuery(**query), Freshness(version))
        return [record.agent.id for record in listing.records]

    async def make_heartbeats_stale(self) -> None:
        """Make every cached heartbeat older than a list may show."""
        for record in (await self.reflector.wait_fresh()).records.values():
            record.heartbeat_read_at = time.monotonic() - 60

    async def list_while(self, change: Callable[[], Awaitable[object]], query: AgentQuery) -> AgentList:
        """Return a list that is read while `change` happens, between the request for heartbeats and its response."""
        await self.make_heartbeats_stale()
        self.store.gate = asyncio.Event()
        reading = asyncio.create_task(self.discovery.agents(query))
        await async_wait_until(lambda: self.store.requests, description="the heartbeats are requested")
        await change()
        self.store.gate.set()
        return await reading


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """Provide a mesh with the agents of `SPREAD`, at version 5."""
    log = FakeChangeLog()
    for agent in SPREAD:
        log.write(agent, "add")
    async with running_reflector(log) as reflector:
        yield Mesh(log, reflector)


def capabilities(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    """Return capabilities with these names and versions."""
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
    # One capability must satisfy all conditions on capabilities.
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
async def test_a_query_selects_the_agents_that_satisfy_all_conditions(
    mesh: Mesh, query: dict[str, Any], found: str
) -> None:
    """They are sorted by namespace, then id, whichever index the query uses."""
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
async def test_a_capability_query_selects_capabilities(mesh: Mesh, query: CapabilityQuery, found: list[str]) -> None:
    """They follow the order of the agents, then the order in each registration."""
    search = await mesh.discovery.capabilities(query)

    assert [f"{one.agent.id}.{one.capability.name}" for one in search.matches] == found


async def test_an_invalid_query_is_rejected_before_the_store_is_read(mesh: Mesh) -> None:
    """An unknown status or an invalid constraint costs no request to the store."""
    queries: list[dict[str, Any]] = [{"status": "sleepy"}, {"version_constraint": "soon"}]
    for query in queries:
        with pytest.raises(MalformedRequest):
            await mesh.found(None, **query)

    assert mesh.store.requests == []


async def test_an_unknown_agent_is_an_error_with_its_id(mesh: Mesh) -> None:
    """The request for its heartbeat, already sent, causes no second error."""
    with pytest.raises(UnknownAgent) as unknown:
        await mesh.discovery.agent("z")

    assert unknown.value.agent_id == "z"


async def test_one_agent_is_shown_with_its_exact_heartbeat(mesh: Mesh) -> None:
    """Each read requests it from the store, even when the cache is fresh."""
    for at in (10, 20):
        mesh.store.times["a"] = at
        assert (await mesh.discovery.agent("a")).record.heartbeat == at


async def test_resource_version_0_reads_the_cache_only(mesh: Mesh) -> None:
    """Neither a list nor a read of one agent sends a request to the store."""
    await mesh.make_heartbeats_stale()

    assert await mesh.found(0) == list("bcad")
    assert (await mesh.discovery.agent("a", Freshness(0))).record.agent.id == "a"

    assert mesh.store.requests == []


async def test_the_cache_is_not_ready_before_the_first_fill() -> None:
    """A read at version 0 fails with `NotReady`."""
    log = FakeChangeLog()

    with pytest.raises(NotReady):
        await Mesh(log, make_reflector(log)).found(0)


async def test_lists_request_only_stale_heartbeats(mesh: Mesh) -> None:
    """One request covers all of them, and is not repeated within a second."""
    await mesh.make_heartbeats_stale()

    await mesh.found(status="unhealthy")
    await mesh.found(status="unhealthy")
    await mesh.found()

    assert [sorted(ids) for ids in mesh.store.requests] == [["b", "d"], ["a", "c"]]


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
async def test_a_list_shows_the_version_it_names(
    mesh: Mesh, change: Agent, kind: Literal["add", "modify", "remove"], found: list[str]
) -> None:
    """Once, a list showed old rows under a new version when an agent changed during the request for heartbeats.

    A watch from that version would never have sent the changes that the rows lacked.
    """

    async def write_change() -> None:
        before = mesh.log.agents.get(change.id)
        if kind != "modify" or before is None:
            mesh.log.write(change, kind)
        else:
            mesh.log.write_from(change, status_before=before.status, spec_before=before.spec)
        await mesh.reflector.wait_fresh()

    listing = await mesh.list_while(write_change, AgentQuery(status="healthy"))

    now = found if listing.version == 9 else ["a"]
    assert [record.agent.id for record in listing.records] == now
    assert all(record.agent.version <= listing.version for record in listing.records)


async def test_a_list_survives_a_refill_of_the_cache(mesh: Mesh) -> None:
    """Its rows and its version are both of the old view or both of the new one."""

    async def replace_the_log() -> None:
        mesh.log.timeline, mesh.log.agents, mesh.log.changes = "h2", {}, [a_change(8, "new_timeline")]
        mesh.log.write(an_agent("z", 9), "add")
        await async_wait_until(
            lambda: mesh.reflector.gaps and mesh.reflector.fills > 1, description="the cache is filled again"
        )

    listing = await mesh.list_while(replace_the_log, AgentQuery())

    ids = [record.agent.id for record in listing.records]
    assert (listing.version, ids) in [(5, list("bcad")), (9, ["z"])]


async def test_a_failure_of_the_store_is_raised_once(mesh: Mesh) -> None:
    """Both requests of a read fail; one error is raised, and asyncio logs no unretrieved exception."""
    await mesh.reflector.wait_fresh()
    mesh.log.unavailable = mesh.store.unavailable = True
    unretrieved: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unretrieved.append(context))

    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await mesh.discovery.agent("a")
        await asyncio.sleep(0)
    gc.collect()

    assert unretrieved == []


async def test_a_version_ahead_of_the_cache_is_an_error(mesh: Mesh) -> None:
    """The store is read once more, then the error is one that the caller may retry."""
    with pytest.raises(StoreUnavailable) as ahead:
        await mesh.found(6)

    assert ahead.value.reason == "version_ahead"
    assert await mesh.found(5) == list("bcad")


async def test_an_exact_version_is_returned_while_the_result_has_not_changed_since(mesh: Mesh) -> None:
    """It works on a replica that gets the query for the first time; otherwise the version is too old."""
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


async def test_an_exact_version_of_the_capabilities_is_the_cached_one_or_an_error(mesh: Mesh) -> None:
    """Results of capability queries are not cached, so an older version cannot be proven unchanged."""
    search = await mesh.discovery.capabilities(CapabilityQuery(name="read"), Freshness(5, exact=True))
    assert (search.version, len(search.matches)) == (5, 2)

    mesh.log.write(an_agent("e", 6), "add")
    await mesh.reflector.wait_fresh()
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
async def test_a_client_version_is_compared_by_version_and_timeline(
    mesh: Mesh, known: ClientVersion, *, unchanged: bool
) -> None:
    """The list is unchanged if no later change concerns it; a version of another timeline never matches."""
    mesh.log.write(an_agent("e", 6, namespace="n9"), "add")

    listing = await mesh.discovery.agents(AgentQuery(namespace="n1"), client_version=known)

    assert listing.unchanged is unchanged
    assert [record.agent.id for record in listing.records] == ([] if unchanged else ["a", "d"])


async def test_pages_cover_the_whole_list(mesh: Mesh) -> None:
    """Each page starts after the last row of the previous one and requests only the heartbeats of its own rows."""
    await mesh.make_heartbeats_stale()

    first = await mesh.discovery.agents(AgentQuery(), page=Page(3))
    assert sorted(mesh.store.requests[0]) == ["a", "b", "c"]
    second = await mesh.discovery.agents(AgentQuery(), page=Page(3, first.next_after, first.version))

    assert [record.agent.id for record in (*first.records, *second.records)] == list("bcad")
    assert (first.next_after is None, second.next_after) == (False, None)


async def test_expensive_rows_are_prepared_cooperatively_and_once(mesh: Mesh) -> None:
    """A list with one agent with very many dependencies blocked the replica for half a second.

    A change during the preparation is in the list.
    """
    prepared: list[str] = []

    class Rows(RowFormat):
        async def prepare(self, _view: View, record: Record) -> None:
            prepared.append(record.agent.id)
            mesh.log.write(an_agent("new", 7), "add")
            await mesh.reflector.wait_fresh()

    discovery = Discovery(mesh.reflector, cast(Agents, mesh.store), Rows())
    mesh.log.write(an_agent("large", 6, metadata={"x": "y" * 2_000}), "add")

    listing = await discovery.agents(AgentQuery())
    assert prepared == ["large"]
    assert [record.agent.id for record in listing.records] == ["b", "c", "large", "new", "a", "d"]
    assert listing.rows
    await discovery.agents(AgentQuery())

    assert prepared == ["large"]
