"""Where the server is that takes our writes: fixed, or as Sentinels or the cluster say at each connect."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from registry.config.redis_url import Node
from registry.store.scripts import Command
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

Ask = Callable[[Node, Sequence[Command]], Coroutine[Any, Any, list[Any]]]

# Seconds for all who are asked together; a connect that waits for them has 1.5.
_ANSWER = 0.75
# Seconds for which a newer answer stands against older ones: those who were slow to hear of a failover.
_BELIEVED = 10.0
# How many nodes of a cluster are remembered beside the seeds: those that served our slot at last.
_REMEMBERED = 16


class Guided(Protocol):
    """A connection, as far as it concerns where it leads to."""

    node: Node | None

    def abort(self) -> None:
        """Break it now: whoever waits on it learns at once."""


class Locator:
    """A fixed address, and the base of those that move.

    `generation` rises when connections made so far may lead to the wrong server: they are not used again. Connections
    that lead elsewhere than the address found last are broken at once, since a server that froze would let them wait.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.address: Node | None = None
        self._connections: weakref.WeakSet[Guided] = weakref.WeakSet()

    async def find(self) -> Node | None:
        """Return where to connect to, None for the address the connection has. Raises a RedisError or OSError."""
        return None

    def joined(self, connection: Guided) -> None:
        """Take note of a connection that leads to the address found last."""
        self._connections.add(connection)

    def mistrust(self, generation: int, _elsewhere: Node | None = None) -> None:
        """Give up every connection as old as the one over which a server said that it is not the one."""
        if generation == self.generation:
            self.generation += 1

    def _found(self, node: Node) -> Node:
        before, self.address = self.address, node
        if before not in {None, node}:
            self.generation += 1
            log.warning("Redis has moved", before=_shown(before), now=_shown(node))
            for connection in [each for each in self._connections if each.node not in {None, node}]:
                connection.abort()
        return node


class SentinelLocator(Locator):
    """Asks all Sentinels at once and believes the one with the newest configuration among a majority.

    One Sentinel that was cut off would name the old primary for as long as it is cut off.
    """

    def __init__(self, sentinels: Sequence[Node], service: str, ask: Ask) -> None:
        super().__init__()
        self._sentinels = sentinels
        self._service = service
        self._ask = ask
        self._newest: tuple[int, Node] = (-1, ("", 0))
        self._heard_at = 0.0

    async def find(self) -> Node:
        """Return the primary of the service."""
        answers: list[tuple[int, Node]] = []
        questions = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service), ("SENTINEL", "MASTER", self._service)]
        async with aclosing(_answers(self._ask, self._sentinels, questions)) as replies:
            async for _, (address, facts) in replies:
                if isinstance(address, list) and isinstance(facts, list):
                    told = dict(zip(facts[::2], facts[1::2], strict=False))
                    # In the midst of a failover the one who leads it names the next primary, under the epoch before.
                    ahead = [told.get(b"ip"), told.get(b"port")] != address
                    answers.append((int(told.get(b"config-epoch", 0)) + ahead, (address[0].decode(), int(address[1]))))
                if 2 * len(answers) > len(self._sentinels):
                    break
        if not answers:
            asked = ", ".join(map(_shown, self._sentinels))
            raise RedisConnectionError(f"No Sentinel of {asked} says where {self._service!r} is")
        return self._found(self._newest_of(max(answers)))

    def _newest_of(self, heard: tuple[int, Node]) -> Node:
        """Prefer what was heard a moment ago under a later epoch; after that Sentinels may have been set up anew."""
        now = asyncio.get_running_loop().time()
        if heard[0] >= self._newest[0] or now - self._heard_at > _BELIEVED:
            self._newest, self._heard_at = heard, now
        return self._newest[1]


class ClusterLocator(Locator):
    """Asks the nodes of a cluster who owns the mesh's slot, and takes MOVED at its word, once."""

    def __init__(self, seeds: Sequence[Node], key: bytes, ask: Ask) -> None:
        super().__init__()
        self._seeds = tuple(seeds)
        self._remembered: tuple[Node, ...] = ()
        self._slot = key_slot(key)
        self._ask = ask
        self._hint: Node | None = None

    def mistrust(self, generation: int, elsewhere: Node | None = None) -> None:
        """As in a fixed place; MOVED says where to look next."""
        if generation == self.generation:
            self._hint = elsewhere
        super().mistrust(generation)

    async def find(self) -> Node:
        """Return the node that owns the slot."""
        hint, self._hint = self._hint, None
        if hint is not None:
            return self._found(hint)
        nodes = tuple(dict.fromkeys((*self._remembered, *self._seeds)))
        async with aclosing(_answers(self._ask, nodes, [("CLUSTER", "SLOTS")])) as replies:
            async for asked, (ranges,) in replies:
                owners = self._owners(asked, ranges)
                if owners:
                    self._remembered = owners[:_REMEMBERED]
                    return self._found(owners[0])
        raise RedisConnectionError(f"No node of {', '.join(map(_shown, nodes))} says who owns slot {self._slot}")

    def _owners(self, asked: Node, ranges: Any) -> tuple[Node, ...]:
        """Return the node that owns the slot and its replicas, as one node sees it."""
        for first, last, *owners in ranges if isinstance(ranges, list) else ():
            if first <= self._slot <= last:
                # A node that does not know its own address gives none: it is where we asked.
                return tuple(((host or b"").decode() or asked[0], int(port)) for host, port, *_ in owners)
        return ()


async def _answers(
    ask: Ask, nodes: Sequence[Node], questions: Sequence[Command]
) -> AsyncGenerator[tuple[Node, list[Any]], None]:
    """Ask all nodes at once and give the answers as they come, for so long at most; who fails is passed over."""
    pending = {asyncio.create_task(ask(node, questions)): node for node in nodes}
    loop = asyncio.get_running_loop()
    end = loop.time() + _ANSWER
    try:
        while pending and loop.time() < end:
            done, _ = await asyncio.wait(pending, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = pending.pop(task)
                try:
                    answer = task.result()
                except (RedisError, OSError, TimeoutError) as error:
                    log.debug("a node did not say where Redis is", node=_shown(node), error=str(error))
                    continue
                refused = [reply for reply in answer if isinstance(reply, ResponseError)]
                if refused:
                    log.debug("a node did not say where Redis is", node=_shown(node), error=str(refused[0]))
                    continue
                yield node, answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _shown(node: Node | None) -> str:
    return "nowhere" if node is None else f"{node[0]}:{node[1]}"
