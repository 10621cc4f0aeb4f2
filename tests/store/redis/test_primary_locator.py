"""Where the server is: whom is believed, and when it is asked anew."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from registry.config.redis_url import HostPort
from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.store.agents import RegistrationWrite
from registry.store.keys import Keys
from registry.store.redis.connection import endpoint_from_url
from registry.store.redis.primary_locator import ClusterLocator, SentinelLocator
from registry.store.scripts import Command
from registry.store.store import Store
from tests.support.polling import async_wait_until
from tests.support.redis_cluster import TwoNodeCluster
from tests.support.redis_server import RedisServer

A, B = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
SLOT = key_slot(Keys("mesh").version)


class Asked:
    """Nodes that answer what they are told to: a reply for each question, an exception, or nothing for ever."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def ask(self, node: HostPort, _questions: Sequence[Command]) -> list[Any]:
        """Answer."""
        self.asked.append(node[0])
        answer = self.answers.get(node[0], ConnectionRefusedError())
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


def primary(node: HostPort, epoch: int, known: HostPort | None = None) -> list[Any]:
    """What a Sentinel answers: where the primary is, and its facts, which may still be those of another."""
    told = known or node
    address = [node[0].encode(), str(node[1]).encode()]
    return [
        address,
        [b"ip", told[0].encode(), b"port", str(told[1]).encode(), b"config-epoch", str(epoch).encode()],
    ]


def sentinels(asked: Asked) -> SentinelLocator:
    """Ask all of them."""
    return SentinelLocator([(name, 26379) for name in asked.answers], "mesh", asked.ask)


async def test_the_newest_configuration_of_a_majority_is_believed() -> None:
    """A Sentinel that was cut off names the old primary."""
    assert await sentinels(Asked({"x": primary(A, 3), "y": primary(B, 4), "z": None})).find() == B


async def test_a_sentinel_that_leads_a_failover_is_ahead_of_its_epoch() -> None:
    """It names the next primary before it has written that down."""
    assert await sentinels(Asked({"x": primary(A, 3), "y": primary(B, 3, known=A), "z": None})).find() == B


async def test_an_older_answer_a_moment_later_changes_nothing() -> None:
    """Others are slow to hear of it."""
    asked = Asked({"x": primary(B, 4), "y": primary(B, 4), "z": primary(B, 4)})
    locator = sentinels(asked)
    await locator.find()
    asked.answers.update(x=primary(A, 3), y=primary(A, 3), z=None)

    assert await locator.find() == B
    assert locator.generation == 0


@pytest.mark.parametrize(
    "away", [None, RedisConnectionError("refused"), ConnectionRefusedError(), [None, None]], ids=str
)
async def test_one_sentinel_that_answers_is_enough(away: Any) -> None:
    """The others may be frozen, gone, or know no such service."""
    assert await sentinels(Asked({"x": away, "y": away, "z": primary(A, 1)})).find() == A


async def test_no_sentinel_that_knows_is_trouble_that_names_them() -> None:
    """In time."""
    with pytest.raises(RedisConnectionError, match="No Sentinel of x:26379, y:26379 returned a primary for 'mesh'"):
        await sentinels(Asked({"x": None, "y": [None, redis.ResponseError("ERR No such master")]})).find()


def owner(node: HostPort, first: int = 0, last: int = 16383) -> list[Any]:
    """What a node of a cluster answers."""
    return [[[first, last, [node[0].encode(), node[1], b"id", []], [b"10.0.0.9", 6379, b"id", []]]]]


def cluster(asked: Asked) -> ClusterLocator:
    """Ask all seeds."""
    return ClusterLocator([(name, 7000) for name in asked.answers], Keys("mesh").version, asked.ask)


async def test_the_owner_of_the_slot_is_found_among_all() -> None:
    """By its range."""
    others = [
        [0, SLOT - 1, [b"10.0.0.7", 1, b"id"]],
        *owner(A, SLOT, SLOT)[0],
        [SLOT + 1, 16383, [b"10.0.0.8", 1, b"id"]],
    ]

    assert await cluster(Asked({"x": [others]})).find() == A


async def test_a_node_that_does_not_know_its_own_address_is_where_we_asked() -> None:
    """So it is with a cluster of one."""
    assert await cluster(Asked({"x": [[[0, 16383, [b"", 7001, b"id"]]]]})).find() == ("x", 7001)


async def test_moved_is_taken_at_its_word_once() -> None:
    """If it leads nowhere, the nodes are asked again."""
    asked = Asked({"x": owner(A)})
    locator = cluster(asked)
    await locator.find()
    locator.invalidate(locator.generation, B)

    assert await locator.find() == B
    assert asked.asked == ["x"]
    assert await locator.find() == A


async def test_the_owners_are_remembered_for_when_the_seeds_are_gone() -> None:
    """They are asked beside the seeds."""
    asked = Asked({"x": owner(A)})
    locator = cluster(asked)
    await locator.find()
    asked.answers |= {"x": ConnectionRefusedError(), A[0]: ConnectionRefusedError(), "10.0.0.9": owner(B)}

    assert await locator.find() == B


async def test_a_slot_that_nobody_owns_is_trouble() -> None:
    """As while a cluster is being made."""
    with pytest.raises(RedisConnectionError, match=f"No node of x:7000 returned the owner of slot {SLOT}"):
        await cluster(Asked({"x": [[]]})).find()


class Connected:
    """A connection, as far as the locator knows it."""

    def __init__(self, node: HostPort) -> None:
        self.node: HostPort | None = node
        self.aborted = False

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


async def test_connections_that_lead_elsewhere_are_broken_when_redis_has_moved() -> None:
    """A server that froze would let them wait; those that lead there already stay, but are not trusted either."""
    asked = Asked({"x": primary(A, 1)})
    locator = sentinels(asked)
    await locator.find()
    old, new = Connected(A), Connected(B)
    locator.track(old)
    locator.track(new)
    asked.answers["x"] = primary(B, 2)

    await locator.find()

    assert (old.aborted, new.aborted, locator.generation) == (True, False, 1)


async def test_only_the_first_to_learn_of_it_makes_all_look_anew() -> None:
    """Others that come with the same news are late."""
    locator = cluster(Asked({"x": owner(A)}))

    for _ in range(3):
        locator.invalidate(0)

    assert locator.generation == 1


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodeCluster]:
    """Provide a cluster of two."""
    with TwoNodeCluster() as running:
        yield running


@contextlib.asynccontextmanager
async def store_at(url: str) -> Any:
    """A store, opened."""
    store = Store(endpoint_from_url(url), Settings(), lambda _script, _seconds: None)
    await store.change_log.open()
    try:
        yield store
    finally:
        await store.close()


def registration(agent_id: str, precondition: str = "") -> RegistrationWrite:
    """An agent in one word."""
    return RegistrationWrite(agent_id, b"{}", 60_000, 120_000, precondition)


async def test_a_cluster_of_one_is_spoken_to_as_any_server() -> None:
    """Through the node that owns the mesh's slot, with the bell on that node."""
    with RedisServer("--cluster-enabled", "yes", tcp=True) as server:
        server.make_single_node_cluster()
        async with store_at(f"redis+cluster://127.0.0.1:{server.port}") as store:
            await store.agents.register(registration("a"))

            assert (await store.agents.heartbeat("a")).outcome == "healthy"


async def test_a_slot_that_moves_is_followed_and_nobody_notices(nodes: TwoNodeCluster) -> None:
    """MOVED means that nothing was done: what may be repeated is, on the node that it names."""
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


async def test_a_slot_on_its_way_is_trouble_that_passes(nodes: TwoNodeCluster) -> None:
    """ASK and TRYAGAIN: one mesh is one unit, and half of it is here and half of it there."""
    async with store_at(nodes.url) as store:
        await store.agents.register(registration("a"))
        nodes.start_moving_slot(SLOT, to=1)

        with pytest.raises(StoreUnavailable) as caught:
            await store.agents.register(registration("new"))
        assert (caught.value.reason, caught.value.outcome) == ("resharding", "not_sent")

        nodes.move_slot(SLOT, to=1)
        await async_wait_until(lambda: _beats(store), description="it is over")
        nodes.move_slot(SLOT, to=0)


async def _beats(store: Store) -> bool:
    try:
        return (await store.agents.heartbeat("a")).outcome == "healthy"
    except StoreUnavailable:
        return False
