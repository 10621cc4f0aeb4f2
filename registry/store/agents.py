"""The agents in Redis: register, heartbeat, drain, unregister, and when each was last heard of."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from registry.errors import StaleVersion, UnknownAgent
from registry.store.chunks import chunks
from registry.store.codec import encode_edges, server_time_ms
from registry.store.keys import Keys, encode
from registry.store.redis.batcher import Batcher
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.redis.retry import call_with_retry
from registry.store.scripts import Command, ScriptCall, load_scripts

HeartbeatMode = Literal["revive", "extend", "record"]
HeartbeatOutcome = Literal["healthy", "pending", "degraded", "expired", "unknown_agent", "bad_record"]
RegistrationOutcome = Literal["created", "updated", "unchanged"]
DrainOutcome = Literal["changed", "unchanged", "unknown_agent", "bad_record"]

_HEARTBEAT_OUTCOMES: dict[bytes, HeartbeatOutcome] = {word.encode(): word for word in get_args(HeartbeatOutcome)}

# A slice of a large read: big enough to be quick, small enough that nobody behind it waits.
_MAX_IDS_PER_READ = 1000
# What a replica knows of a heartbeat is never older than this, in milliseconds, when it takes it for new.
_RECENT_HEARTBEATS_MS = 5000


@dataclass(frozen=True, slots=True)
class RegistrationWrite:
    """What the store is asked to keep of one agent.

    `timeout` and `eviction` are milliseconds. `precondition` is '' for none, `absent`, `present`, or a version: the
    agent's last spec change or any later one of this agent. With `beats` it makes a new or pending agent healthy, too.
    `required_edges` tells which of its capabilities cannot do without which, `edges_revision` the number as of which
    they were checked.
    """

    agent_id: str
    spec: bytes
    timeout: int
    eviction: int
    precondition: str = ""
    counts_as_heartbeat: bool = False
    required_edges: frozenset[tuple[str, str]] = frozenset()
    edges_revision: str = ""


class EdgesChangedError(Exception):
    """An edge is new, and since it was checked there has been another new one; nothing was written."""


@dataclass(frozen=True, slots=True)
class RegistrationResult:
    """What became of a registration, and the agent's resource version now."""

    outcome: RegistrationOutcome
    version: int


class HeartbeatResult(NamedTuple):
    """What a heartbeat found, and the Redis server's time of it in milliseconds.

    `response_digest` is the digest of what the agent was told last, where this heartbeat told none; '' where it never
    was.
    """

    outcome: HeartbeatOutcome
    now: int
    response_digest: str = ""


class AgentDrainResult(NamedTuple):
    """What became of one agent that was to drain or to end that, and its resource version now, None without one."""

    outcome: DrainOutcome
    version: int | None


class LastHeartbeats(NamedTuple):
    """Last heartbeats in the order asked (None before the first) and the Redis server's time, all in milliseconds."""

    times: list[int | None]
    now: int


class RecentHeartbeats(NamedTuple):
    """Who beat since some moment, with the last heartbeat, and the Redis server's time, all in milliseconds."""

    heartbeats: list[tuple[str, int]]
    now: int


# One heartbeat: who, how, the load it tells, and the digest of what it is told; '' for neither. No class of its own, as
# there is nothing the registry makes as many of.
_HeartbeatItem: TypeAlias = tuple[str, HeartbeatMode, str, str]


class _Write(NamedTuple):
    call: ScriptCall
    retryable: bool


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
        log_length: int,
        *,
        heartbeats: Pipeline,
        writes: Pipeline,
        reads: Pipeline,
        shebang: bool = True,
        acks: int = 0,
    ) -> None:
        scripts = load_scripts(shebang=shebang)
        self._register, self._heartbeat = scripts["register"], scripts["heartbeat"]
        self._unregister, self._drain = scripts["unregister"], scripts["drain"]
        self.last_written_version = 0
        """The newest version that a write through here has brought."""
        self._keys = keys
        self._log_length = log_length
        self._acks = acks
        self._heartbeat_pipeline, self._write_pipeline, self._read_pipeline = heartbeats, writes, reads
        self._heartbeat_batcher: Batcher[_HeartbeatItem, HeartbeatResult] = Batcher(self._send_heartbeats)
        self._write_batcher: Batcher[_Write, Any] = Batcher(self._send_writes)
        self._last_heartbeats_batcher: Batcher[Sequence[str], LastHeartbeats] = Batcher(self._send_last_heartbeats)
        self._recent_heartbeats_batcher: Batcher[int | None, RecentHeartbeats] = Batcher(
            self._send_recent_heartbeats, max_batch=1
        )

    async def register(self, registration: RegistrationWrite) -> RegistrationResult:
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
                "counts_as_heartbeat": int(registration.counts_as_heartbeat),
                "edges": encode_edges(registration.required_edges) if registration.required_edges else "",
                "edges_revision": registration.edges_revision,
                "log_length": self._log_length,
            },
        )
        word, *rest = await self._write(call, retryable=not registration.precondition)
        if word == b"edges_changed":
            raise EdgesChangedError
        version = int(rest[0]) if rest[0] else None
        if word == b"stale_version" or version is None:
            raise StaleVersion(registration.agent_id, version)
        self.last_written_version = max(self.last_written_version, version)
        return RegistrationResult(cast(RegistrationOutcome, word.decode()), version)

    async def edges_revision(self) -> str:
        """Return the number that rises with each new edge."""
        (reply,) = await self._read_pipeline.execute([("HGET", self._keys.required_edges, "revision")])
        return (raise_for_error(reply) or b"0").decode()

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent and return the version of its removal. Raises UnknownAgent."""
        call = self._unregister.call(
            {**self._keys.shared, "agent_key": self._keys.agent(agent_id)},
            {"id": agent_id, "log_length": self._log_length},
        )
        word, *version = await self._write(call, retryable=False)
        if word == b"unknown_agent":
            raise UnknownAgent(agent_id)
        self.last_written_version = max(self.last_written_version, int(version[0]))
        return int(version[0])

    async def drain(self, agent_ids: Sequence[str], *, draining: bool) -> list[AgentDrainResult]:
        """Let up to 200 agents drain, or end that; tell what became of each, in the order given."""
        call = self._drain.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in agent_ids]},
            {
                "draining": int(draining),
                "log_length": self._log_length,
                "ids…": [encode(agent_id) for agent_id in agent_ids],
            },
        )
        _, *flat = await self._write(call, retryable=False)
        self.last_written_version = max(
            [self.last_written_version, *(int(version) for version in flat[1::2] if version)]
        )
        return [
            AgentDrainResult(cast(DrainOutcome, word.decode()), int(version) if version else None)
            for word, version in zip(flat[::2], flat[1::2], strict=True)
        ]

    def heartbeat(
        self, agent_id: str, mode: HeartbeatMode = "revive", *, load: str = "", response_digest: str = ""
    ) -> "asyncio.Future[HeartbeatResult]":
        """Prolong one agent's life; `extend` prolongs only a healthy one and reports any other, `record` prolongs none.

        `load` is a number the agent tells of itself, `response_digest` the digest of what it is told; '' leaves what is
        known.
        """
        return self._heartbeat_batcher.submit((agent_id, mode, load, response_digest))

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return each agent's last heartbeat, in the order asked, and the Redis server's time."""
        return self._last_heartbeats_batcher.submit(agent_ids)

    def heartbeats_since(self, moment: int | None) -> "asyncio.Future[RecentHeartbeats]":
        """Return who beat since a moment of the Redis server; without one, since five seconds ago."""
        return self._recent_heartbeats_batcher.submit(moment)

    async def close(self) -> None:
        """Finish what was accepted."""
        for batch in (
            self._heartbeat_batcher,
            self._write_batcher,
            self._last_heartbeats_batcher,
            self._recent_heartbeats_batcher,
        ):
            await batch.close()

    async def _write(self, call: ScriptCall, *, retryable: bool) -> list[bytes]:
        return cast("list[bytes]", await self._write_batcher.submit(_Write(call, retryable)))

    async def _send_writes(self, writes: Sequence[_Write]) -> Sequence[Any]:
        calls, repeat = [write.call for write in writes], [write.retryable for write in writes]
        return await call_with_retry(self._write_pipeline, calls, repeat, acks=self._acks)

    async def _send_heartbeats(self, items: Sequence[_HeartbeatItem]) -> list[HeartbeatResult | Exception]:
        call = self._heartbeat.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, *_ in items]},
            {"log_length": self._log_length, "agents…": tuple(chain.from_iterable(items))},
        )
        (reply,) = await call_with_retry(self._heartbeat_pipeline, [call], [True], acks=self._acks)
        _, at, *words = raise_for_error(reply)
        now = int(at)
        return [_decode_heartbeat(word, now) for word in words]

    async def _send_last_heartbeats(self, queries: Sequence[Sequence[str]]) -> list[LastHeartbeats | Exception]:
        ids = list(chain.from_iterable(queries))
        commands: list[Command] = [("ZMSCORE", self._keys.heartbeats, *part) for part in chunks(ids, _MAX_IDS_PER_READ)]
        time, *replies = await self._read_pipeline.execute([("TIME",), *commands])
        now = server_time_ms(raise_for_error(time))
        scores = (None if score is None else int(score) for reply in replies for score in raise_for_error(reply))
        return [LastHeartbeats([next(scores) for _ in ids], now) for ids in queries]

    async def _send_recent_heartbeats(self, queries: Sequence[int | None]) -> list[RecentHeartbeats | Exception]:
        (moment,) = queries
        now = server_time_ms(raise_for_error((await self._read_pipeline.execute([("TIME",)]))[0]))
        low, most = now - _RECENT_HEARTBEATS_MS if moment is None else moment, _MAX_IDS_PER_READ
        beats: dict[str, int] = {}
        while True:
            limit = ("BYSCORE", "LIMIT", 0, most, "WITHSCORES")
            (reply,) = await self._read_pipeline.execute([("ZRANGE", self._keys.heartbeats, low, "+inf", *limit)])
            flat = raise_for_error(reply)
            beats.update((flat[at].decode(), int(flat[at + 1])) for at in range(0, len(flat), 2))
            if len(flat) < 2 * most:
                return [RecentHeartbeats([*beats.items()], now)]
            # From the last one on, as others may have beaten in the same millisecond; wider where all of them have.
            last = int(flat[-1])
            low, most = last, 2 * most if last == low else most


def _decode_heartbeat(reply: bytes, now: int) -> HeartbeatResult:
    found = _HEARTBEAT_OUTCOMES.get(reply)
    if found is not None:
        return HeartbeatResult(found, now)
    word, _, stored_digest = reply.partition(b" ")
    return HeartbeatResult(_HEARTBEAT_OUTCOMES.get(word, "bad_record"), now, stored_digest.decode())
