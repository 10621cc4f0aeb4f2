"""Sweeps: find overdue agents; degrade, expire or remove them; repair times after a clock rollback."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from registry.config.settings import Settings
from registry.errors import RegistryError
from registry.store.keys import Keys, decode, encode
from registry.store.record_codec import encode_log_limits, server_time_ms
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.redis_health import MESH
from registry.store.scripts import MAX_AGENTS_PER_CALL
from registry.store.seen_version import SeenVersion

_MILLISECOND = timedelta(milliseconds=1)


class StaleEpochError(RegistryError):
    """Another replica leads with a newer epoch; the sweep of this replica wrote nothing."""

    code = "stale_epoch"


class SweepWork(NamedTuple):
    """The work of a sweep: overdue agents, whether to update self-preservation, and a clock rollback to repair.

    `clock_rollback` is the time when Redis' clock was set back, '' if no times need repair.
    """

    ids: list[str]
    self_preservation: bool
    clock_rollback: str


class ScanCursor(NamedTuple):
    """A position in a scan over all agents, valid on one connection only: another may lead to another server."""

    position: int
    connection: int


class SweepResult(NamedTuple):
    """The numbers of agents by outcome of one call of lua/sweep.lua."""

    degraded: int = 0
    expired: int = 0
    removed: int = 0
    not_due: int = 0
    orphaned: int = 0
    bad_record: int = 0
    grace_granted: int = 0
    suspended: int = 0


class Release(NamedTuple):
    """Agents that are overdue again after self-preservation, and where the next call continues, None at the end."""

    agents: int
    after: str | None


class Sweeps:
    """The operations on Redis that only the leader runs."""

    def __init__(self, keys: Keys, settings: Settings, seen: SeenVersion, pipeline: Pipeline) -> None:
        self._keys = keys
        self._seen = seen
        self._settings = settings
        self._log_limits = encode_log_limits(settings.watch_history, settings.watch_history_bytes)
        self._pipeline = pipeline
        self._period_cursor: int | bytes = 0

    async def find_work(self) -> SweepWork:
        """Return the work of the next sweep, with up to 200 overdue agents, the longest overdue first."""
        keys = self._keys.shared
        overdue = ("ZRANGE", keys["deadlines"], 0, MAX_AGENTS_PER_CALL - 1, "WITHSCORES")
        replies = await self._pipeline.execute(
            [
                ("TIME",),
                overdue,
                ("EXISTS", keys["self_preservation"], keys["suspended"]),
                ("GET", keys["clock_rollback"]),
            ]
        )
        time, pairs, self_preservation, clock_rollback = map(raise_for_error, replies)
        now = server_time_ms(time)
        ids = [decode(member) for member, score in zip(pairs[::2], pairs[1::2], strict=True) if int(score) <= now]
        return SweepWork(ids, bool(self_preservation), decode(clock_rollback or b""))

    async def sweep(self, ids: Sequence[str], epoch: int) -> SweepResult:
        """Change agents to their next status, or suspend them during self-preservation.

        Changes and counts nothing if the last store probe is older than 5 s: there may have been an outage. Raises
        StaleEpochError.
        """
        settings = self._settings
        call = self._pipeline.scripts["sweep"].call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in ids]},
            {
                "leader_epoch": epoch,
                "log_limits": self._log_limits,
                "seen_version": self._seen.version,
                "retention": settings.retention // _MILLISECOND,
                "window": settings.agent_timeout // _MILLISECOND,
                "max_share": int(settings.self_preservation_share),
                "min_agents": settings.self_preservation_min_agents,
                "max_duration": settings.self_preservation_duration // _MILLISECOND,
                "ids…": [encode(agent_id) for agent_id in ids],
            },
        )
        word, *rest = await self._pipeline.call_script(call)
        _raise_if_stale(word, rest, epoch)
        return SweepResult(*rest)

    async def update_self_preservation(self, epoch: int) -> Release:
        """Update the next 200 or so periods of self-preservation, and release agents. Raises StaleEpochError.

        With more periods than that, the next call continues where this one ended.
        """
        scan = ("HSCAN", self._keys.shared["self_preservation"], self._period_cursor, "COUNT", MAX_AGENTS_PER_CALL)
        self._period_cursor, fields = raise_for_error((await self._pipeline.execute([scan]))[0])
        names = [name for name in fields[::2] if name != MESH.encode()]
        *others, last = [names[at : at + MAX_AGENTS_PER_CALL] for at in range(0, len(names) or 1, MAX_AGENTS_PER_CALL)]
        for part in others:
            await self.release(epoch, "", namespaces=part)
        return await self.release(epoch, "", namespaces=last)

    async def release(
        self, epoch: int, after: str, *, everything: bool = False, namespaces: Sequence[bytes] = ()
    ) -> Release:
        """Make up to 1,200 agents overdue again that self-preservation no longer suspends, or with `everything` any.

        It continues behind the namespace `after`; the periods of `namespaces` are updated before. Raises
        StaleEpochError.
        """
        settings = self._settings
        call = self._pipeline.scripts["update_self_preservation"].call(
            self._keys.shared,
            {
                "leader_epoch": epoch,
                "window": settings.agent_timeout // _MILLISECOND,
                "max_share": int(settings.self_preservation_share),
                "min_agents": settings.self_preservation_min_agents,
                "max_duration": settings.self_preservation_duration // _MILLISECOND,
                "release_all": int(everything),
                "after": encode(after),
                "namespaces…": namespaces,
            },
        )
        word, *rest = await self._pipeline.call_script(call)
        _raise_if_stale(word, rest, epoch)
        return Release(int(rest[0]), None if word == b"done" else decode(rest[1]))

    async def scan_agents(self, cursor: ScanCursor | None) -> tuple[ScanCursor | None, list[str]]:
        """Return the next cursor (None at the end) and some of all agent ids; ids may be repeated. Start with None."""
        same_connection = cursor is not None and cursor.connection == self._pipeline.connections_opened
        position, pairs = await self._scan(cursor.position if cursor is not None and same_connection else 0)
        if cursor is not None and cursor.connection != self._pipeline.connections_opened:
            position, pairs = await self._scan(0)
        next_cursor = ScanCursor(int(position), self._pipeline.connections_opened) if int(position) else None
        return next_cursor, [decode(member) for member in pairs[::2]]

    async def _scan(self, position: int) -> Any:
        (reply,) = await self._pipeline.execute(
            [("ZSCAN", self._keys.deadlines, position, "COUNT", MAX_AGENTS_PER_CALL)]
        )
        return raise_for_error(reply)

    async def repair_clock_rollback(
        self, ids: Sequence[str], clock_rollback: str, epoch: int, *, is_last: bool
    ) -> bool:
        """Correct the stored times of some agents after the clock of Redis went back.

        `find_work` returns `clock_rollback`; the call with `is_last` ends the repair.
        Returns False if the repair is complete or has to start again: call `find_work`. Raises StaleEpochError.
        """
        for start in range(0, len(ids) or 1, MAX_AGENTS_PER_CALL):
            part = ids[start : start + MAX_AGENTS_PER_CALL]
            call = self._pipeline.scripts["repair_clock_rollback"].call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in part]},
                {
                    "leader_epoch": epoch,
                    "rollback_ms": encode(clock_rollback),
                    "is_last": int(is_last and start + MAX_AGENTS_PER_CALL >= len(ids)),
                    "ids…": [encode(agent_id) for agent_id in part],
                },
            )
            word, *rest = await self._pipeline.call_script(call)
            _raise_if_stale(word, rest, epoch)
            if word == b"not_needed":
                return False
        return True

    async def end_self_preservation(self, namespace: str | None = None) -> int:
        """End self-preservation of a namespace (`*`: of the mesh), by default all; return the number of periods."""
        total = 0
        while True:
            call = self._pipeline.scripts["end_self_preservation"].call(
                self._keys.shared, {"namespace": namespace or ""}
            )
            word, *ended = await self._pipeline.call_script(call)
            if word == b"not_active":
                return total
            total += ended[0]

    async def epoch(self) -> int:
        """Return the current epoch of the leader, 0 without one; a replica without leader election sweeps with it."""
        (epoch,) = await self._pipeline.execute([("GET", self._keys.shared["epoch"])])
        return int(raise_for_error(epoch) or 0)


def _raise_if_stale(status: bytes, rest: Sequence[bytes], epoch: int) -> None:
    if status == b"stale_epoch":
        raise StaleEpochError(f"Epoch {epoch} is outdated; the current epoch is {rest[0].decode()}")
