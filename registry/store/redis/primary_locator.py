"""Locates the Redis primary: at a fixed address, or by queries to Sentinels or cluster nodes at each connect."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from registry.config.redis_url import HostPort
from registry.store.scripts import Command
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

NodeQuery = Callable[[HostPort, Sequence[Command]], Coroutine[Any, Any, list[Any]]]

# For the queries of all nodes together; a connect has 1.5 s.
_QUERY_TIMEOUT_S = 0.75
# How long a reply overrides replies with an older configuration, from Sentinels that detect a failover late.
_NEWEST_REPLY_TTL_S = 10.0
# How many cluster nodes are cached in addition to the seeds: those that served the mesh's slot last.
_MAX_CACHED_NODES = 16


class LocatedConnection(Protocol):
    """The part of a connection that a locator uses: its address, and a way to break it."""

    node: HostPort | None

    def abort(self) -> None:
        """Break the connection immediately, so that pending reads fail at once."""


class PrimaryLocator:
    """Locates a primary with a fixed address; base class of the locators whose primary can move.

    `generation` rises when existing connections may lead to the wrong server; those are not used again. Connections to
    another address than the latest one are broken at once, because their server may be frozen and never reply.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.address: HostPort | None = None
        self._connections: weakref.WeakSet[LocatedConnection] = weakref.WeakSet()

    @property
    def found_nodes(self) -> tuple[HostPort, ...]:
        """The addresses that the locator has found: the current primary, and other nodes of a cluster."""
        return () if self.address is None else (self.address,)

    async def find(self) -> HostPort | None:
        """Return the primary's address; None if the connection has a fixed one. Raises RedisError or OSError."""
        return None

    def track(self, connection: LocatedConnection) -> None:
        """Register a connection, so that it is broken when the primary moves to another address."""
        self._connections.add(connection)

    def invalidate(self, generation: int, _redirected_to: HostPort | None = None) -> None:
        """Invalidate all connections of a generation, because one of their servers is not the primary."""
        if generation == self.generation:
            self.generation += 1

    def _set_address(self, node: HostPort) -> HostPort:
        before, self.address = self.address, node
        if before not in {None, node}:
            self.generation += 1
            log.warning("redis_primary_changed", before=_format_node(before), after=_format_node(node))
            for connection in [tracked for tracked in self._connections if tracked.node not in {None, node}]:
                connection.abort()
        return node


class SentinelLocator(PrimaryLocator):
    """Queries all Sentinels at once; of the replies of a majority it uses the newest address of the primary.

    A single Sentinel may be partitioned from the others and return the old primary.
    """

    def __init__(self, sentinels: Sequence[HostPort], service: str, query: NodeQuery) -> None:
        super().__init__()
        self._sentinels = sentinels
        self._service = service
        self._query = query
        self._newest: tuple[int, HostPort] = (-1, ("", 0))
        self._newest_read_at = 0.0

    async def find(self) -> HostPort:
        """Return the address of the primary that the Sentinels report for the service name."""
        candidates: list[tuple[int, HostPort]] = []
        commands = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service), ("SENTINEL", "MASTER", self._service)]
        async with aclosing(_query_nodes(self._query, self._sentinels, commands)) as replies:
            async for _, (address, state) in replies:
                if isinstance(address, list) and isinstance(state, list):
                    fields = dict(zip(state[::2], state[1::2], strict=False))
                    # During a failover the Sentinel that leads it returns the next primary with the previous epoch.
                    is_ahead = [fields.get(b"ip"), fields.get(b"port")] != address
                    epoch = int(fields.get(b"config-epoch", 0)) + is_ahead
                    candidates.append((epoch, (address[0].decode(), int(address[1]))))
                if 2 * len(candidates) > len(self._sentinels):
                    break
        if not candidates:
            sentinels = ", ".join(map(_format_node, self._sentinels))
            raise RedisConnectionError(f"No Sentinel of {sentinels} returned a primary for {self._service!r}")
        return self._set_address(self._prefer_newest(max(candidates)))

    def _prefer_newest(self, candidate: tuple[int, HostPort]) -> HostPort:
        """Return the primary's address from a new reply, or from an earlier recent reply with a higher epoch.

        A reply is used for a limited time, because Sentinels that were set up again start with low epochs.
        """
        now = asyncio.get_running_loop().time()
        if candidate[0] >= self._newest[0] or now - self._newest_read_at > _NEWEST_REPLY_TTL_S:
            self._newest, self._newest_read_at = candidate, now
        return self._newest[1]


class ClusterLocator(PrimaryLocator):
    """Queries cluster nodes for the node with the keys of the mesh, and follows a MOVED reply once."""

    def __init__(self, seeds: Sequence[HostPort], key: bytes, query: NodeQuery) -> None:
        super().__init__()
        self._seeds = tuple(seeds)
        self._cached_nodes: tuple[HostPort, ...] = ()
        self._slot = key_slot(key)
        self._query = query
        self._redirected_to: HostPort | None = None

    @property
    def found_nodes(self) -> tuple[HostPort, ...]:
        """The current primary, and the nodes that served the mesh's slot last."""
        return (*super().found_nodes, *self._cached_nodes)

    def invalidate(self, generation: int, redirected_to: HostPort | None = None) -> None:
        """Invalidate all connections of a generation, and use the target of a MOVED reply for the next connection."""
        if generation == self.generation:
            self._redirected_to = redirected_to
        super().invalidate(generation)

    async def find(self) -> HostPort:
        """Return the address of the node that owns the mesh's slot."""
        redirected_to, self._redirected_to = self._redirected_to, None
        if redirected_to is not None:
            return self._set_address(redirected_to)
        nodes = tuple(dict.fromkeys((*self._cached_nodes, *self._seeds)))
        async with aclosing(_query_nodes(self._query, nodes, [("CLUSTER", "SLOTS")])) as replies:
            async for node, (ranges,) in replies:
                owners = self._slot_owners(node, ranges)
                if owners:
                    self._cached_nodes = owners[:_MAX_CACHED_NODES]
                    return self._set_address(owners[0])
        queried = ", ".join(map(_format_node, nodes))
        raise RedisConnectionError(f"No node of {queried} returned the owner of slot {self._slot}")

    def _slot_owners(self, queried: HostPort, ranges: Any) -> tuple[HostPort, ...]:
        """Return the owner of the mesh's slot and then its replicas, as one node reports them."""
        for first, last, *owners in ranges if isinstance(ranges, list) else ():
            if first <= self._slot <= last:
                # A node without a configured address returns none for itself: use the queried one.
                return tuple(((host or b"").decode() or queried[0], int(port)) for host, port, *_ in owners)
        return ()


async def _query_nodes(
    query: NodeQuery, nodes: Sequence[HostPort], commands: Sequence[Command]
) -> AsyncGenerator[tuple[HostPort, list[Any]], None]:
    """Query all nodes at once and yield their replies as they arrive, until the timeout; skip nodes that fail."""
    pending = {asyncio.create_task(query(node, commands)): node for node in nodes}
    loop = asyncio.get_running_loop()
    end = loop.time() + _QUERY_TIMEOUT_S
    try:
        while pending and loop.time() < end:
            done, _ = await asyncio.wait(pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = pending.pop(task)
                try:
                    replies = task.result()
                except (RedisError, OSError, TimeoutError) as error:
                    log.debug("primary_lookup_failed", node=_format_node(node), error=str(error))
                    continue
                errors = [reply for reply in replies if isinstance(reply, RedisError)]
                if errors:
                    log.debug("primary_lookup_failed", node=_format_node(node), error=str(errors[0]))
                    continue
                yield node, replies
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _format_node(node: HostPort | None) -> str:
    return "none" if node is None else f"{node[0]}:{node[1]}"
