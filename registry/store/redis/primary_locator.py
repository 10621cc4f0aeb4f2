"""Where the server is that takes our writes: fixed, or as Sentinels or the cluster say at each connect."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from registry.config.redis_url import HostPort
from registry.store.scripts import Command
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

NodeQuery = Callable[[HostPort, Sequence[Command]], Coroutine[Any, Any, list[Any]]]

# Seconds for all who are asked together; a connect that waits for them has 1.5.
_QUERY_TIMEOUT_S = 0.75
# Seconds for which a newer answer stands against older ones: those who were slow to hear of a failover.
_NEWEST_REPLY_TTL_S = 10.0
# How many nodes of a cluster are remembered beside the seeds: those that served our slot at last.
_MAX_CACHED_NODES = 16


class LocatedConnection(Protocol):
    """A connection, as far as it concerns where it leads to."""

    node: HostPort | None

    def abort(self) -> None:
        """Break it now: whoever waits on it learns at once."""


class PrimaryLocator:
    """A fixed address, and the base of those that move.

    `generation` rises when connections made so far may lead to the wrong server: they are not used again. Connections
    that lead elsewhere than the address found last are broken at once, since a server that froze would let them wait.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.address: HostPort | None = None
        self._connections: weakref.WeakSet[LocatedConnection] = weakref.WeakSet()

    async def find(self) -> HostPort | None:
        """Return where to connect to, None for the address the connection has. Raises a RedisError or OSError."""
        return None

    def track(self, connection: LocatedConnection) -> None:
        """Take note of a connection that leads to the address found last."""
        self._connections.add(connection)

    def invalidate(self, generation: int, _redirected_to: HostPort | None = None) -> None:
        """Give up every connection as old as the one over which a server said that it is not the one."""
        if generation == self.generation:
            self.generation += 1

    def _set_address(self, node: HostPort) -> HostPort:
        before, self.address = self.address, node
        if before not in {None, node}:
            self.generation += 1
            log.warning("Redis has moved", before=_format_node(before), now=_format_node(node))
            for connection in [each for each in self._connections if each.node not in {None, node}]:
                connection.abort()
        return node


class SentinelLocator(PrimaryLocator):
    """Asks all Sentinels at once and believes the one with the newest configuration among a majority.

    One Sentinel that was cut off would name the old primary for as long as it is cut off.
    """

    def __init__(self, sentinels: Sequence[HostPort], service: str, query: NodeQuery) -> None:
        super().__init__()
        self._sentinels = sentinels
        self._service = service
        self._query = query
        self._newest: tuple[int, HostPort] = (-1, ("", 0))
        self._newest_read_at = 0.0

    async def find(self) -> HostPort:
        """Return the primary of the service."""
        answers: list[tuple[int, HostPort]] = []
        questions = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service), ("SENTINEL", "MASTER", self._service)]
        async with aclosing(_query_nodes(self._query, self._sentinels, questions)) as replies:
            async for _, (address, facts) in replies:
                if isinstance(address, list) and isinstance(facts, list):
                    told = dict(zip(facts[::2], facts[1::2], strict=False))
                    # In the midst of a failover the one who leads it names the next primary, under the epoch before.
                    ahead = [told.get(b"ip"), told.get(b"port")] != address
                    answers.append((int(told.get(b"config-epoch", 0)) + ahead, (address[0].decode(), int(address[1]))))
                if 2 * len(answers) > len(self._sentinels):
                    break
        if not answers:
            asked = ", ".join(map(_format_node, self._sentinels))
            raise RedisConnectionError(f"No Sentinel of {asked} says where {self._service!r} is")
        return self._set_address(self._prefer_newest(max(answers)))

    def _prefer_newest(self, candidate: tuple[int, HostPort]) -> HostPort:
        """Prefer what was heard a moment ago under a later epoch; after that Sentinels may have been set up anew."""
        now = asyncio.get_running_loop().time()
        if candidate[0] >= self._newest[0] or now - self._newest_read_at > _NEWEST_REPLY_TTL_S:
            self._newest, self._newest_read_at = candidate, now
        return self._newest[1]


class ClusterLocator(PrimaryLocator):
    """Asks the nodes of a cluster who owns the mesh's slot, and takes MOVED at its word, once."""

    def __init__(self, seeds: Sequence[HostPort], key: bytes, query: NodeQuery) -> None:
        super().__init__()
        self._seeds = tuple(seeds)
        self._cached_nodes: tuple[HostPort, ...] = ()
        self._slot = key_slot(key)
        self._query = query
        self._redirected_to: HostPort | None = None

    def invalidate(self, generation: int, redirected_to: HostPort | None = None) -> None:
        """As in a fixed place; MOVED says where to look next."""
        if generation == self.generation:
            self._redirected_to = redirected_to
        super().invalidate(generation)

    async def find(self) -> HostPort:
        """Return the node that owns the slot."""
        hint, self._redirected_to = self._redirected_to, None
        if hint is not None:
            return self._set_address(hint)
        nodes = tuple(dict.fromkeys((*self._cached_nodes, *self._seeds)))
        async with aclosing(_query_nodes(self._query, nodes, [("CLUSTER", "SLOTS")])) as replies:
            async for asked, (ranges,) in replies:
                owners = self._slot_owners(asked, ranges)
                if owners:
                    self._cached_nodes = owners[:_MAX_CACHED_NODES]
                    return self._set_address(owners[0])
        raise RedisConnectionError(f"No node of {', '.join(map(_format_node, nodes))} says who owns slot {self._slot}")

    def _slot_owners(self, queried: HostPort, ranges: Any) -> tuple[HostPort, ...]:
        """Return the node that owns the slot and its replicas, as one node sees it."""
        for first, last, *owners in ranges if isinstance(ranges, list) else ():
            if first <= self._slot <= last:
                # A node that does not know its own address gives none: it is where we asked.
                return tuple(((host or b"").decode() or queried[0], int(port)) for host, port, *_ in owners)
        return ()


async def _query_nodes(
    query: NodeQuery, nodes: Sequence[HostPort], commands: Sequence[Command]
) -> AsyncGenerator[tuple[HostPort, list[Any]], None]:
    """Ask all nodes at once and give the answers as they come, for so long at most; who fails is passed over."""
    pending = {asyncio.create_task(query(node, commands)): node for node in nodes}
    loop = asyncio.get_running_loop()
    end = loop.time() + _QUERY_TIMEOUT_S
    try:
        while pending and loop.time() < end:
            done, _ = await asyncio.wait(pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = pending.pop(task)
                try:
                    answer = task.result()
                except (RedisError, OSError, TimeoutError) as error:
                    log.debug("a node did not say where Redis is", node=_format_node(node), error=str(error))
                    continue
                refused = [reply for reply in answer if isinstance(reply, ResponseError)]
                if refused:
                    log.debug("a node did not say where Redis is", node=_format_node(node), error=str(refused[0]))
                    continue
                yield node, answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _format_node(node: HostPort | None) -> str:
    return "nowhere" if node is None else f"{node[0]}:{node[1]}"
