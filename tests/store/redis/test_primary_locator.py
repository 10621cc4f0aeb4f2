"""The locator of the primary: which node is trusted, and when it is located again."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
import structlog
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import LogCapture

from registry.config.redis_url import HostPort
from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.agents import RegistrationWrite
from registry.store.keys import Keys
from registry.store.redis import primary_locator
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.primary_locator import ClusterLocator, SentinelLocator
from registry.store.scripts import Command
from registry.store.store import Store
from tests.support.polling import async_wait_until
from tests.support.redis_cluster import TwoNodeCluster
from tests.support.redis_server import RedisServer

A, B = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
SLOT = key_slot(Keys("mesh").version)


class FakeNodes:
    """Nodes with a configured response each: a reply for each command, an exception, or none at all."""

    def __init__(self, responses: dict[str, Any]) -> None:
        self.responses = responses
        self.queried: list[str] = []

    async def ask(self, node: HostPort, _commands: Sequence[Command]) -> list[Any]:
        """Return or raise the response of the node."""
        self.queried.append(node[0])
        response = self.responses.get(node[0], ConnectionRefusedError())
        if response is None:
            await asyncio.Event().wait()
        if isinstance(response, Exception):
            raise response
        return list(response)


def primary(node: HostPort, epoch: int, known: HostPort | None = None) -> list[Any]:
    """Return the reply of a Sentinel: the address of the primary, and its facts, which may be those of another."""
    facts = known or node
    address = [node[0].encode(), str(node[1]).encode()]
    return [
        address,
        [b"ip", facts[0].encode(), b"port", str(facts[1]).encode(), b"config-epoch", str(epoch).encode()],
    ]


def sentinel_locator(fake_nodes: FakeNodes) -> SentinelLocator:
    """Return a locator that queries all Sentinels."""
    return SentinelLocator([(name, 26379) for name in fake_nodes.responses], "mesh", fake_nodes.ask)


async def test_the_newest_configuration_of_a_majority_is_used() -> None:
    """A Sentinel that was partitioned returns the old primary."""
    assert await sentinel_locator(FakeNodes({"x": primary(A, 3), "y": primary(B, 4), "z": None})).find() == B


async def test_a_sentinel_that_leads_a_failover_precedes_its_epoch() -> None:
    """It returns the next primary before it has stored the new epoch."""
    assert await sentinel_locator(FakeNodes({"x": primary(A, 3), "y": primary(B, 3, known=A), "z": None})).find() == B


async def test_an_older_response_is_ignored_later() -> None:
    """Other Sentinels learn of a failover with a delay."""
    fake_nodes = FakeNodes({"x": primary(B, 4), "y": primary(B, 4), "z": primary(B, 4)})
    locator = sentinel_locator(fake_nodes)
    await locator.find()
    fake_nodes.responses.update(x=primary(A, 3), y=primary(A, 3), z=None)

    assert await locator.find() == B
    assert locator.generation == 0


@pytest.mark.parametrize(
    "response", [None, RedisConnectionError("refused"), ConnectionRefusedError(), [None, None]], ids=str
)
async def test_one_responding_sentinel_is_enough(response: Any) -> None:
    """The others may be frozen, gone, or have no such service."""
    assert await sentinel_locator(FakeNodes({"x": response, "y": response, "z": primary(A, 1)})).find() == A


async def test_the_error_without_a_primary_names_the_sentinels() -> None:
    """It is raised within the timeout."""
    with pytest.raises(RedisConnectionError, match="No Sentinel of x:26379, y:26379 returned a primary for 'mesh'"):
        await sentinel_locator(FakeNodes({"x": None, "y": [None, redis.ResponseError("ERR No such master")]})).find()


def owner(node: HostPort, first: int = 0, last: int = 16383) -> list[Any]:
    """Return the reply of a node of a cluster."""
    return [[[first, last, [node[0].encode(), node[1], b"id", []], [b"10.0.0.9", 6379, b"id", []]]]]


def cluster_locator(fake_nodes: FakeNodes) -> ClusterLocator:
    """Return a locator that queries all seeds."""
    return ClusterLocator([(name, 7000) for name in fake_nodes.responses], Keys("mesh").version, fake_nodes.ask)


async def test_the_owner_of_the_slot_is_found_among_all_ranges() -> None:
    """The slot lies between two other ranges."""
    others = [
        [0, SLOT - 1, [b"10.0.0.7", 1, b"id"]],
        *owner(A, SLOT, SLOT)[0],
        [SLOT + 1, 16383, [b"10.0.0.8", 1, b"id"]],
    ]

    assert await cluster_locator(FakeNodes({"x": [others]})).find() == A


async def test_a_node_without_its_own_address_has_that_of_the_request() -> None:
    """A cluster of one node returns an empty address."""
    assert await cluster_locator(FakeNodes({"x": [[[0, 16383, [b"", 7001, b"id"]]]]})).find() == ("x", 7001)


async def test_the_address_of_moved_is_used_once() -> None:
    """If it is wrong, the nodes are queried again."""
    fake_nodes = FakeNodes({"x": owner(A)})
    locator = cluster_locator(fake_nodes)
    await locator.find()
    locator.invalidate(locator.generation, B)

    assert await locator.find() == B
    assert fake_nodes.queried == ["x"]
    assert await locator.find() == A


async def test_known_owners_are_queried_if_the_seeds_are_gone() -> None:
    """They are queried in addition to the seeds."""
    fake_nodes = FakeNodes({"x": owner(A)})
    locator = cluster_locator(fake_nodes)
    await locator.find()
    fake_nodes.responses |= {"x": ConnectionRefusedError(), A[0]: ConnectionRefusedError(), "10.0.0.9": owner(B)}

    assert await locator.find() == B


async def test_a_node_that_still_loads_its_data_is_skipped_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is a connection error of redis-py, not an error reply."""
    capture = LogCapture()
    monkeypatch.setattr(primary_locator, "log", structlog.wrap_logger(None, processors=[capture]))

    with pytest.raises(RedisConnectionError):
        await cluster_locator(FakeNodes({"x": [redis.BusyLoadingError("loading")]})).find()

    assert [(entry["event"], entry["node"], entry["error"]) for entry in capture.entries] == [
        ("primary_lookup_failed", "x:7000", "loading")
    ]


async def test_a_slot_without_an_owner_is_unavailable() -> None:
    """This happens while a cluster is created."""
    with pytest.raises(RedisConnectionError, match=f"No node of x:7000 returned the owner of slot {SLOT}"):
        await cluster_locator(FakeNodes({"x": [[]]})).find()


class FakeConnection:
    """A connection with the attributes that the locator uses."""

    def __init__(self, node: HostPort) -> None:
        self.node: HostPort | None = node
        self.aborted = False

    def abort(self) -> None:
        """Record the call."""
        self.aborted = True


async def test_connections_to_another_node_are_aborted_after_a_failover() -> None:
    """They could wait for a frozen server. Connections to the new primary stay, but must be checked again."""
    fake_nodes = FakeNodes({"x": primary(A, 1)})
    locator = sentinel_locator(fake_nodes)
    await locator.find()
    old, new = FakeConnection(A), FakeConnection(B)
    locator.track(old)
    locator.track(new)
    fake_nodes.responses["x"] = primary(B, 2)

    await locator.find()

    assert (old.aborted, new.aborted, locator.generation) == (True, False, 1)


async def test_only_the_first_report_invalidates_the_location() -> None:
    """Later reports of the same generation have no effect."""
    locator = cluster_locator(FakeNodes({"x": owner(A)}))

    for _ in range(3):
        locator.invalidate(0)

    assert locator.generation == 1


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodeCluster]:
    """Provide a cluster of two nodes."""
    with TwoNodeCluster() as running:
        yield running


@contextlib.asynccontextmanager
async def store_at(url: str) -> Any:
    """Provide an open store."""
    store = Store(endpoint_from_url(url), Settings(), lambda _script, _seconds: None)
    await store.change_log.open()
    try:
        yield store
    finally:
        await store.close()


def registration(agent_id: str, precondition: str = "") -> RegistrationWrite:
    """Return a minimal registration."""
    return RegistrationWrite(agent_id, b"{}", 60_000, 120_000, precondition)


async def test_a_cluster_of_one_node_works_like_a_server() -> None:
    """Commands go to the node that owns the slot of the mesh."""
    with RedisServer("--cluster-enabled", "yes", tcp=True) as server:
        server.make_single_node_cluster()
        async with store_at(f"redis+cluster://127.0.0.1:{server.port}") as store:
            await store.agents.register(registration("a"))

            assert (await store.agents.heartbeat("a")).outcome == "healthy"


async def test_a_moved_slot_is_followed_without_errors(nodes: TwoNodeCluster) -> None:
    """MOVED means that no command was executed, so repeatable calls are repeated on the node it names."""
    async with store_at(nodes.url) as store:
        await store.agents.register(registration("a"))
        nodes.move_slot(SLOT, to=1)

        assert (await store.agents.heartbeat("a")).outcome == "healthy"
        assert (await store.agents.register(registration("b"))).outcome == "created"
        with redis.Redis.from_url(nodes.nodes[1].url) as owner_now:
            assert owner_now.exists("{mesh}:agent:b")

        nodes.move_slot(SLOT, to=0)
        with pytest.raises(StoreUnavailable) as caught:
            await store.agents.register(registration("c", "absent"))
        assert (caught.value.reason, caught.value.outcome) == ("moved", "not_sent")
        assert "MOVED" not in str(caught.value)
        assert (await store.agents.register(registration("c", "absent"))).outcome == "created"


async def test_a_slot_in_migration_is_unavailable_for_a_while(nodes: TwoNodeCluster) -> None:
    """With ASK and TRYAGAIN some keys of the mesh are on one node and some on the other."""
    async with store_at(nodes.url) as store:
        await store.agents.register(registration("a"))
        nodes.start_moving_slot(SLOT, to=1)

        with pytest.raises(StoreUnavailable) as caught:
            await store.agents.register(registration("new"))
        assert (caught.value.reason, caught.value.outcome) == ("resharding", "not_sent")

        nodes.move_slot(SLOT, to=1)
        await async_wait_until(lambda: _is_healthy(store), description="the slot has moved")
        nodes.move_slot(SLOT, to=0)


async def _is_healthy(store: Store) -> bool:
    try:
        return (await store.agents.heartbeat("a")).outcome == "healthy"
    except StoreUnavailable:
        return False
