"""Agents in Redis: register, heartbeat, drain, unregister, and read last heartbeats."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from registry.errors import IdInUse, StaleVersion, UnknownAgent
from registry.model.registration.schema import DEFAULT_NAMESPACE
from registry.store.keys import Keys, encode
from registry.store.record_codec import encode_edges, server_time_ms
from registry.store.redis.batcher import Batcher
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.redis.retry import call_with_retry
from registry.store.scripts import Command, ScriptCall, chunks
from registry.store.seen_version import SeenVersion

HeartbeatMode = Literal["revive", "extend", "record"]
HeartbeatOutcome = Literal["healthy", "pending", "degraded", "expired", "unknown_agent", "bad_record"]
RegistrationOutcome = Literal["created", "updated", "unchanged"]
DrainOutcome = Literal["changed", "unchanged", "unknown_agent", "bad_record"]

_HEARTBEAT_OUTCOMES: dict[bytes, HeartbeatOutcome] = {word.encode(): word for word in get_args(HeartbeatOutcome)}

# Large reads are split: a longer command would delay the commands of others.
_MAX_IDS_PER_READ = 1000
# `heartbeats_since(None)` returns the heartbeats of this period.
_RECENT_HEARTBEATS_MS = 5000


@dataclass(frozen=True, slots=True)
class RegistrationWrite:
    """One registration to write to Redis.

    `timeout` and `eviction` are milliseconds. `precondition` is '' for none, `absent`, `present`, or a version, which
    matches if the spec has not changed after it. With `counts_as_heartbeat` a new or pending agent becomes healthy.
    `required_edges` are edges of the graph of required dependencies; `edges_revision` is the revision that they were
    checked against for cycles. `namespace` and `endpoint` are those in the spec; with `exclusive` the registration is
    rejected while an agent with its id lives at another endpoint.
    """

    agent_id: str
    spec: bytes
    timeout: int
    eviction: int
    precondition: str = ""
    counts_as_heartbeat: bool = False
    required_edges: frozenset[tuple[str, str]] = frozenset()
    edges_revision: str = ""
    namespace: str = DEFAULT_NAMESPACE
    endpoint: str = ""
    exclusive: bool = False


class IdentityConflict(NamedTuple):
    """The namespace and the endpoint of a living agent that a registration with the same id replaced."""

    namespace: str
    endpoint: str


class EdgesChangedError(Exception):
    """The dependencies between capabilities changed since the cycle check; the registration was not written."""


@dataclass(frozen=True, slots=True)
class RegistrationResult:
    """The outcome of a registration, the current resource version of its agent, and a conflict about its id."""

    outcome: RegistrationOutcome
    version: int
    conflict: IdentityConflict | None = None


class HeartbeatResult(NamedTuple):
    """The status of an agent after a heartbeat, or the reason why it failed, and the Redis server's time in ms.

    `version` is the resource version after the heartbeat: every change acknowledged before it has this version or a
    lower one. `response_digest` is the digest of the last response that was stored before, if this heartbeat sent
    another one or none; '' if it sent the same.
    """

    outcome: HeartbeatOutcome
    now: int
    version: int
    response_digest: str = ""


class AgentDrainResult(NamedTuple):
    """The outcome of draining or undraining one agent, and the agent's current version or None."""

    outcome: DrainOutcome
    version: int | None


class LastHeartbeats(NamedTuple):
    """The last heartbeats of the queried agents, in order (None for none), and the Redis server's time, all in ms."""

    times: list[int | None]
    now: int


class RecentHeartbeats(NamedTuple):
    """The agents with a heartbeat since a given time, their last heartbeats, and the Redis server's time, in ms."""

    heartbeats: list[tuple[str, int]]
    now: int


# One heartbeat: agent id, mode, load and response digest, each "" for none. A plain tuple is fastest to create.
_HeartbeatItem: TypeAlias = tuple[str, HeartbeatMode, str, str]


class _Write(NamedTuple):
    call: ScriptCall
    retryable: bool


class Agents:
    """Writes and reads the agents of one mesh.

    Every write is one script and therefore atomic. Heartbeats that arrive together are sent as one call, registrations
    as one pipeline, each over its own connection. Heartbeats and unconditional registrations are idempotent and retried
    once if the connection breaks or the primary moved; other writes are not. `acks` Redis replicas acknowledge a batch.
    """

    def __init__(
        self,
        keys: Keys,
        log_limits: bytes,
        seen: SeenVersion,
        *,
        heartbeats: Pipeline,
        writes: Pipeline,
        reads: Pipeline,
        acks: int = 0,
    ) -> None:
        self._scripts = writes.scripts
        self._keys = keys
        self._log_limits = log_limits
        self._seen = seen
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

        Raises StaleVersion if the precondition fails, IdInUse if another endpoint has the id and the registration is
        exclusive, and EdgesChangedError if the required edges must be checked again.
        """
        edges = registration.required_edges
        # As bytes: to convert texts and numbers takes redis-py longer than all the rest of an argument.
        call = self._scripts["register"].call(
            {**self._keys.shared, "agent_key": self._keys.agent(registration.agent_id)},
            {
                "id": registration.agent_id.encode(),
                "spec": registration.spec,
                "namespace": registration.namespace.encode(),
                "endpoint": registration.endpoint.encode(),
                "exclusive": b"1" if registration.exclusive else b"0",
                "timeout": b"%d" % registration.timeout,
                "eviction": b"%d" % registration.eviction,
                "precondition": registration.precondition.encode() if registration.precondition else b"",
                "counts_as_heartbeat": b"1" if registration.counts_as_heartbeat else b"0",
                "edges": encode_edges(edges) if edges else b"",
                "edges_revision": registration.edges_revision.encode() if registration.edges_revision else b"",
                "log_limits": self._log_limits,
                "seen_version": b"%d" % self._seen.version,
            },
        )
        word, *rest = await self._write(call, retryable=not registration.precondition)
        if word == b"edges_changed":
            raise EdgesChangedError
        if word == b"id_in_use":
            raise IdInUse(registration.agent_id, rest[0].decode())
        version = int(rest[0]) if rest[0] else None
        if word == b"stale_version" or version is None:
            raise StaleVersion(registration.agent_id, version)
        self._seen.raise_to(version)
        conflict = IdentityConflict(*(text.decode() for text in rest[1:])) if len(rest) > 1 else None
        return RegistrationResult(cast(RegistrationOutcome, word.decode()), version, conflict)

    async def edges_revision(self) -> str:
        """Return the revision of the required dependencies between capabilities, which rises with each new one."""
        (reply,) = await self._read_pipeline.execute([("HGET", self._keys.required_edges, "revision")])
        return (raise_for_error(reply) or b"0").decode()

    async def unregister(self, agent_id: str) -> int:
        """Remove one agent and return the resource version of this change. Raises UnknownAgent."""
        call = self._scripts["unregister"].call(
            {**self._keys.shared, "agent_key": self._keys.agent(agent_id)},
            {"id": agent_id, "log_limits": self._log_limits, "seen_version": self._seen.version},
        )
        word, *version = await self._write(call, retryable=False)
        if word == b"unknown_agent":
            raise UnknownAgent(agent_id)
        self._seen.raise_to(int(version[0]))
        return int(version[0])

    async def drain(self, agent_ids: Sequence[str], *, draining: bool) -> list[AgentDrainResult]:
        """Drain or undrain up to 200 agents; return the outcome for each agent, in the order of the arguments."""
        call = self._scripts["drain"].call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in agent_ids]},
            {
                "draining": int(draining),
                "log_limits": self._log_limits,
                "seen_version": self._seen.version,
                "ids…": [encode(agent_id) for agent_id in agent_ids],
            },
        )
        _, *pairs = await self._write(call, retryable=False)
        self._seen.raise_to(max(int(version or 0) for version in pairs[1::2]))
        return [
            AgentDrainResult(cast(DrainOutcome, word.decode()), int(version) if version else None)
            for word, version in zip(pairs[::2], pairs[1::2], strict=True)
        ]

    def heartbeat(
        self, agent_id: str, mode: HeartbeatMode = "revive", *, load: str = "", response_digest: str = ""
    ) -> "asyncio.Future[HeartbeatResult]":
        """Record one heartbeat of an agent.

        `revive` extends the agent's deadline and makes it healthy; `extend` does so only for a healthy agent; `record`
        extends nothing. `load` is the load that the agent reports, `response_digest` the digest of the response that it
        receives; '' does not change the stored value.
        """
        return self._heartbeat_batcher.submit((agent_id, mode, load, response_digest))

    def last_heartbeats(self, agent_ids: Sequence[str]) -> "asyncio.Future[LastHeartbeats]":
        """Return the last heartbeat of each agent, in the order of the arguments, and the Redis server's time."""
        return self._last_heartbeats_batcher.submit(agent_ids)

    def heartbeats_since(self, since: int | None) -> "asyncio.Future[RecentHeartbeats]":
        """Return the agents with a heartbeat since a time of the Redis server; None stands for five seconds ago."""
        return self._recent_heartbeats_batcher.submit(since)

    async def overdue_since(self, agent_ids: Sequence[str]) -> list[int | None]:
        """Return the deadline of each agent that self-preservation suspends, None for others, in the given order."""
        key = self._keys.shared["suspended"]
        commands: list[Command] = [("ZMSCORE", key, *part) for part in chunks(agent_ids, _MAX_IDS_PER_READ)]
        replies = await self._read_pipeline.execute(commands)
        scores = (score for reply in replies for score in raise_for_error(reply))
        return [None if score is None else int(score) for score in scores]

    async def close(self) -> None:
        """Wait until every accepted write and read has its result."""
        for batcher in (
            self._heartbeat_batcher,
            self._write_batcher,
            self._last_heartbeats_batcher,
            self._recent_heartbeats_batcher,
        ):
            await batcher.close()

    async def _write(self, call: ScriptCall, *, retryable: bool) -> list[bytes]:
        return cast("list[bytes]", await self._write_batcher.submit(_Write(call, retryable)))

    async def _send_writes(self, writes: Sequence[_Write]) -> Sequence[Any]:
        calls, retryable = [write.call for write in writes], [write.retryable for write in writes]
        return await call_with_retry(self._write_pipeline, calls, retryable, acks=self._acks)

    async def _send_heartbeats(self, items: Sequence[_HeartbeatItem]) -> list[HeartbeatResult | Exception]:
        call = self._scripts["heartbeat"].call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id, *_ in items]},
            {
                "log_limits": self._log_limits,
                "seen_version": self._seen.version,
                "agents…": tuple(chain.from_iterable(items)),
            },
        )
        (reply,) = await call_with_retry(self._heartbeat_pipeline, [call], [True], acks=self._acks)
        _, time_ms, version_text, *words = raise_for_error(reply)
        version = int(version_text or 0)
        self._seen.raise_to(version)
        return [_decode_heartbeat(word, int(time_ms), version) for word in words]

    async def _send_last_heartbeats(self, queries: Sequence[Sequence[str]]) -> list[LastHeartbeats | Exception]:
        ids = list(chain.from_iterable(queries))
        commands: list[Command] = [("ZMSCORE", self._keys.heartbeats, *part) for part in chunks(ids, _MAX_IDS_PER_READ)]
        time, *replies = await self._read_pipeline.execute([("TIME",), *commands])
        now = server_time_ms(raise_for_error(time))
        scores = (None if score is None else int(score) for reply in replies for score in raise_for_error(reply))
        return [LastHeartbeats([next(scores) for _ in ids], now) for ids in queries]

    async def _send_recent_heartbeats(self, queries: Sequence[int | None]) -> list[RecentHeartbeats | Exception]:
        (since,) = queries
        now = server_time_ms(raise_for_error((await self._read_pipeline.execute([("TIME",)]))[0]))
        low, limit = now - _RECENT_HEARTBEATS_MS if since is None else since, _MAX_IDS_PER_READ
        heartbeats: dict[str, int] = {}
        while True:
            options = ("BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
            (reply,) = await self._read_pipeline.execute([("ZRANGE", self._keys.heartbeats, low, "+inf", *options)])
            pairs = raise_for_error(reply)
            heartbeats |= {id_.decode(): int(time) for id_, time in zip(pairs[::2], pairs[1::2], strict=True)}
            if len(pairs) < 2 * limit:
                return [RecentHeartbeats([*heartbeats.items()], now)]
            # Continue at the last time, which more agents may have. If the whole slice has one time, read a longer one.
            last = int(pairs[-1])
            low, limit = last, 2 * limit if last == low else limit


def _decode_heartbeat(reply: bytes, now: int, version: int) -> HeartbeatResult:
    outcome = _HEARTBEAT_OUTCOMES.get(reply)
    if outcome is not None:
        return HeartbeatResult(outcome, now, version)
    word, _, stored_digest = reply.partition(b" ")
    return HeartbeatResult(_HEARTBEAT_OUTCOMES.get(word, "bad_record"), now, version, stored_digest.decode())
