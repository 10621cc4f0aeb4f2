"""The agents in Redis: register, heartbeat, drain, unregister, and when each was last heard of."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from registry.errors import StaleVersion, UnknownAgent
from registry.store.codec import edges_sent
from registry.store.keys import Keys, sent
from registry.store.redis.batcher import Batch
from registry.store.redis.pipeline import Link, checked
from registry.store.redis.retry import carry_out
from registry.store.scripts import Call, Command, load_scripts

Mode = Literal["beat", "keep", "note"]
Beaten = Literal["healthy", "pending", "degraded", "expired", "unknown_agent", "bad_record"]
Outcome = Literal["created", "updated", "unchanged"]
Shifted = Literal["changed", "unchanged", "unknown_agent", "bad_record"]

_BEATEN: dict[bytes, Beaten] = {word.encode(): word for word in get_args(Beaten)}

# What one drain call may carry; the script refuses more.
LARGEST_DRAIN = 200
# A slice of a large read: big enough to be quick, small enough that nobody behind it waits.
_SLICE = 1000
# What a replica knows of a heartbeat is never older than this, in milliseconds, when it takes it for new.
_LATEST = 5000


@dataclass(frozen=True, slots=True)
class Registration:
    """What the store is asked to keep of one agent.

    `timeout` and `eviction` are milliseconds. `precondition` is '' for none, `absent`, `present`, or a version: the
    agent's last spec change or any later one of this agent. With `beats` it makes a new or pending agent healthy, too.
    `edges` tells which of its capabilities cannot do without which, `seen` the number as of which they were checked.
    """

    agent_id: str
    spec: bytes
    timeout: int
    eviction: int
    precondition: str = ""
    beats: bool = False
    edges: frozenset[tuple[str, str]] = frozenset()
    seen: str = ""


class StaleNumberError(Exception):
    """An edge is new, and since it was checked there has been another new one; nothing was written."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a registration, and the agent's resource version now."""

    outcome: Outcome
    version: int


class Beat(NamedTuple):
    """What a heartbeat found, and the Redis server's time of it in milliseconds.

    `answered` is the digest of what the agent was told last, where this heartbeat told none; '' where it never was.
    """

    found: Beaten
    at: int
    answered: str = ""


class Drained(NamedTuple):
    """What became of one agent that was to drain or to end that, and its resource version now, None without one."""

    found: Shifted
    version: int | None


class Heard(NamedTuple):
    """Last heartbeats in the order asked (None before the first) and the Redis server's time, all in milliseconds."""

    at: list[int | None]
    now: int


class News(NamedTuple):
    """Who beat since some moment, with the last heartbeat, and the Redis server's time, all in milliseconds."""

    beats: list[tuple[str, int]]
    now: int


# One heartbeat: who, how, the load it tells, and the digest of what it is told; '' for neither. No class of its own, as
# there is nothing the registry makes as many of.
_Said: TypeAlias = tuple[str, Mode, str, str]


class _Write(NamedTuple):
    call: Call
    repeat: bool


class Agents:
    """Writes to and reads of the agents of one mesh.

    Every write is one script, so nothing is ever half-written. Heartbeats that arrive together leave as one call,
    registrations as one pipeline, each over a link of its own. Heartbeats and unconditional registrations are repeated
    once when a connection breaks under them or Redis has moved, since doing them twice is doing them once; nothing else
    is. `acks` replicas must have a batch before any of it is acknowledged.
    """

    def __init__(
        self,
        keys: Keys,
        history: int,
        *,
        beats: Link,
        writes: Link,
        reads: Link,
        shebang: bool = True,
        acks: int = 0,
    ) -> None:
        scripts = load_scripts(shebang=shebang)
        self._register, self._heartbeat = scripts["register"], scripts["heartbeat"]
        self._unregister, self._drain = scripts["unregister"], scripts["drain"]
        self.written = 0
        """The newest version that a write through here has brought."""
        self._keys = keys
        self._history = history
        self._acks = acks
        self._beat_link, self._write_link, self._read_link = beats, writes, reads
        self._beats: Batch[_Said, Beat] = Batch(self._send_beats)
        self._writes: Batch[_Write, Any] = Batch(self._send_writes)
        self._times: Batch[Sequence[str], Heard] = Batch(self._send_times)
        self._news: Batch[int | None, News] = Batch(self._send_news, largest=1)

    async def register(self, registration: Registration) -> Registered:
        """Create or replace one agent.

        Raises StaleVersion when the precondition does not hold, StaleNumberError when an edge must be checked again.
        """
        call = self._register.call(
            {**self._keys.shared, "agent_key": self._keys.agent(registration.agent_id)},
            {
                "id": registration.agent_id,
                "spec": registration.spec,
                "timeout": registration.timeout,
                "eviction": registration.eviction,
                "precondition": registration.precondition,
                "beats": int(registration.beats),
                "edges": edges_sent(registration.edges) if registration.edges else "",
                "seen": registration.seen,
                "history": self._history,
            },
        )
        word, *rest = await self._write(call, repeat=not registration.precondition)
        if word == b"stale_number":
            raise StaleNumberError
        version = int(rest[0]) if rest[0] else None
        if word == b"stale_version" or version is None:
            raise StaleVersion(registration.agent_id, version)
        self.written = max(self.written, version)
        return Registered(cast(Outcome, word.decode()), version)

    async def required_number(self) -> str:
        """Return the number that rises with each new edge."""
        (reply,) = await self._read_link.exchange([("HGET", self._keys.required, "number")])
        return (checked(reply) or b"0").decode()

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent and return the version of its removal. Raises UnknownAgent."""
        call = self._unregister.call(
            {**self._keys.shared, "agent_key": self._keys.agent(agent_id)},
            {"id": agent_id, "history": self._history},
        )
        word, *version = await self._write(call, repeat=False)
        if word == b"unknown_agent":
            raise UnknownAgent(agent_id)
        self.written = max(self.written, int(version[0]))
        return int(version[0])

    async def drain(self, agent_ids: Sequence[str], *, draining: bool) -> list[Drained]:
        """Let up to 200 agents drain, or end that; tell what became of each, in the order given."""
        call = self._drain.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in agent_ids]},
            {
                "draining": int(draining),
                "history": self._history,
                "ids…": [sent(agent_id) for agent_id in agent_ids],
            },
        )
        _, *flat = await self._write(call, repeat=False)
        self.written = max([self.written, *(int(version) for version in flat[1::2] if version)])
        return [
            Drained(cast(Shifted, word.decode()), int(version) if version else None)
            for word, version in zip(flat[::2], flat[1::2], strict=True)
        ]

    def heartbeat(
        self, agent_id: str, mode: Mode = "beat", *, load: str = "", answered: str = ""
    ) -> "asyncio.Future[Beat]":
        """Prolong one agent's life; `keep` prolongs only a healthy one and reports any other, `note` prolongs none.

        `load` is a number the agent tells of itself, `answered` the digest of what it is told; '' leaves what is known.
        """
        return self._beats.submit((agent_id, mode, load, answered))

    def last_heard(self, agent_ids: Sequence[str]) -> "asyncio.Future[Heard]":
        """Return each agent's last heartbeat, in the order asked, and the Redis server's time."""
        return self._times.submit(agent_ids)

    def heard_since(self, moment: int | None) -> "asyncio.Future[News]":
        """Return who beat since a moment of the Redis server; without one, since five seconds ago."""
        return self._news.submit(moment)

    async def close(self) -> None:
        """Finish what was accepted."""
        for batch in (self._beats, self._writes, self._times, self._news):
            await batch.close()

    async def _write(self, call: Call, *, repeat: bool) -> list[bytes]:
        return cast("list[bytes]", await self._writes.submit(_Write(call, repeat)))

    async def _send_writes(self, writes: Sequence[_Write]) -> Sequence[Any]:
        calls, repeat = [write.call for write in writes], [write.repeat for write in writes]
        return await carry_out(self._write_link, calls, repeat, acks=self._acks)

    async def _send_beats(self, beats: Sequence[_Said]) -> list[Beat | Exception]:
        call = self._heartbeat.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, *_ in beats]},
            {"history": self._history, "agents…": tuple(chain.from_iterable(beats))},
        )
        (reply,) = await carry_out(self._beat_link, [call], [True], acks=self._acks)
        _, at, *words = checked(reply)
        now = int(at)
        return [_beat(word, now) for word in words]

    async def _send_times(self, asked: Sequence[Sequence[str]]) -> list[Heard | Exception]:
        ids = list(chain.from_iterable(asked))
        slices = [ids[at : at + _SLICE] for at in range(0, len(ids), _SLICE)]
        commands: list[Command] = [("ZMSCORE", self._keys.heartbeats, *part) for part in slices]
        time, *replies = await self._read_link.exchange([("TIME",), *commands])
        now = _milliseconds(time)
        scores = (None if score is None else int(score) for reply in replies for score in checked(reply))
        return [Heard([next(scores) for _ in ids], now) for ids in asked]

    async def _send_news(self, asked: Sequence[int | None]) -> list[News | Exception]:
        (moment,) = asked
        now = _milliseconds((await self._read_link.exchange([("TIME",)]))[0])
        low, most = now - _LATEST if moment is None else moment, _SLICE
        beats: dict[str, int] = {}
        while True:
            limit = ("BYSCORE", "LIMIT", 0, most, "WITHSCORES")
            (reply,) = await self._read_link.exchange([("ZRANGE", self._keys.heartbeats, low, "+inf", *limit)])
            flat = checked(reply)
            beats.update((flat[at].decode(), int(flat[at + 1])) for at in range(0, len(flat), 2))
            if len(flat) < 2 * most:
                return [News([*beats.items()], now)]
            # From the last one on, as others may have beaten in the same millisecond; wider where all of them have.
            last = int(flat[-1])
            low, most = last, 2 * most if last == low else most


def _beat(reply: bytes, now: int) -> Beat:
    found = _BEATEN.get(reply)
    if found is not None:
        return Beat(found, now)
    word, _, answered = reply.partition(b" ")
    return Beat(_BEATEN.get(word, "bad_record"), now, answered.decode())


def _milliseconds(reply: Any) -> int:
    """Return the answer to TIME in milliseconds."""
    seconds, micro = checked(reply)
    return int(seconds) * 1000 + int(micro) // 1000
