"""Who is overdue, and moving them on, under the fencing epoch; setting times right after Redis' clock went back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from registry.errors import RegistryError
from registry.store.codec import server_time_ms
from registry.store.keys import Keys, decode, encode
from registry.store.redis.errors import raise_for_error
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import MAX_AGENTS_PER_CALL, load_scripts


class StaleEpochError(RegistryError):
    """Another replica leads under a newer epoch; nothing was swept."""

    code = "stale_epoch"


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """How long an expired agent stays, and which silence is held; durations are milliseconds.

    More than `self_preservation_share` percent of the healthy agents, but at least `self_preservation_min_agents`, that
    fall silent within `self_preservation_window` are held for `self_preservation_duration`.
    """

    retention: int
    self_preservation_window: int
    self_preservation_share: int
    self_preservation_min_agents: int
    self_preservation_duration: int


class SweepWork(NamedTuple):
    """What a sweep has to do: agents past their deadline, whether a hold is on or was lately, and a walk to go on.

    `rewind` says when Redis' clock went back, '' where every agent's times are right.
    """

    ids: list[str]
    self_preservation: bool
    clock_rollback: str


class ScanCursor(NamedTuple):
    """A place in a walk over all agents. Another connection may lead to another server, where it means nothing."""

    position: int
    connection: int


class SweepResult(NamedTuple):
    """What became of the agents of one sweep call; see the header of lua/sweep.lua."""

    degraded: int
    expired: int
    removed: int
    not_due: int
    orphaned: int
    bad_record: int
    grace_granted: int


class Sweeps:
    """The leader's calls over a link of its own. `log_length` and `limits` go into every sweep."""

    def __init__(
        self, keys: Keys, log_length: int, limits: SweepLimits, pipeline: Pipeline, *, shebang: bool = True
    ) -> None:
        scripts = load_scripts(shebang=shebang)
        self._sweep, self._repair_clock_rollback, self._end_self_preservation = (
            scripts[verb] for verb in ("sweep", "repair_clock_rollback", "end_self_preservation")
        )
        self._keys = keys
        self._log_length = log_length
        self._limits = limits
        self._pipeline = pipeline

    async def find_work(self) -> SweepWork:
        """Return what is to do; of the agents up to 200, the longest overdue by the Redis server's time first."""
        keys = self._keys
        overdue = ("ZRANGE", keys.deadlines, 0, MAX_AGENTS_PER_CALL - 1, "WITHSCORES")
        replies = await self._pipeline.execute(
            [("TIME",), overdue, ("EXISTS", keys.self_preservation), ("GET", keys.clock_rollback)]
        )
        time, flat, self_preservation, clock_rollback = map(raise_for_error, replies)
        now = server_time_ms(time)
        ids = [decode(member) for member, score in zip(flat[::2], flat[1::2], strict=True) if int(score) <= now]
        return SweepWork(ids, bool(self_preservation), decode(clock_rollback or b""))

    async def sweep(self, ids: Sequence[str], epoch: int) -> SweepResult | None:
        """Move these agents one step on; None where nobody was, because a mass silence is held.

        Raises StaleEpochError when another replica leads by now.
        """
        limits = self._limits
        call = self._sweep.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in ids]},
            {
                "leader_epoch": epoch,
                "log_length": self._log_length,
                "retention": limits.retention,
                "window": limits.self_preservation_window,
                "max_share": limits.self_preservation_share,
                "min_agents": limits.self_preservation_min_agents,
                "max_duration": limits.self_preservation_duration,
                "ids…": [encode(agent_id) for agent_id in ids],
            },
        )
        word, *rest = raise_for_error((await self._pipeline.call_scripts([call]))[0])
        _raise_if_stale(word, rest, epoch)
        return None if word == b"suspended" else SweepResult(*rest)

    async def scan_agents(self, cursor: ScanCursor | None) -> tuple[ScanCursor | None, list[str]]:
        """Walk over all agents, from None until it is None again; each that stays is met at least once."""
        at = cursor.position if cursor is not None and cursor.connection == self._pipeline.connections_opened else 0
        following, flat = await self._scan(at)
        if cursor is not None and cursor.connection != self._pipeline.connections_opened:
            following, flat = await self._scan(0)
        more = ScanCursor(int(following), self._pipeline.connections_opened) if int(following) else None
        return more, [decode(member) for member in flat[::2]]

    async def _scan(self, position: int) -> Any:
        (reply,) = await self._pipeline.execute(
            [("ZSCAN", self._keys.deadlines, position, "COUNT", MAX_AGENTS_PER_CALL)]
        )
        return raise_for_error(reply)

    async def repair_clock_rollback(
        self, ids: Sequence[str], clock_rollback: str, epoch: int, *, is_last: bool
    ) -> bool:
        """Set the times of these agents right; `clock_rollback` is Due's, `is_last` says that these are the last.

        False when the walk is over or has to begin anew: look at what is due again. Raises StaleEpochError.
        """
        for at in range(0, len(ids) or 1, MAX_AGENTS_PER_CALL):
            some = ids[at : at + MAX_AGENTS_PER_CALL]
            call = self._repair_clock_rollback.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in some]},
                {
                    "leader_epoch": epoch,
                    "rollback_ms": encode(clock_rollback),
                    "is_last": int(is_last and at + MAX_AGENTS_PER_CALL >= len(ids)),
                    "ids…": [encode(agent_id) for agent_id in some],
                },
            )
            word, *rest = raise_for_error((await self._pipeline.call_scripts([call]))[0])
            _raise_if_stale(word, rest, epoch)
            if word == b"not_needed":
                return False
        return True

    async def end_self_preservation(self) -> bool:
        """End the hold of a mass silence; False when there is none."""
        word = raise_for_error(
            (await self._pipeline.call_scripts([self._end_self_preservation.call(self._keys.shared, {})]))[0]
        )[0]
        return bool(word == b"ended")

    async def epoch(self) -> int:
        """Return the epoch now, 0 when none was ever taken: what a replica without leader election sweeps under."""
        (epoch,) = await self._pipeline.execute([("GET", self._keys.epoch)])
        return int(raise_for_error(epoch) or 0)


def _raise_if_stale(status: bytes, rest: Sequence[bytes], epoch: int) -> None:
    if status == b"stale_epoch":
        raise StaleEpochError(f"Epoch {epoch} is over; epoch {rest[0].decode()} sweeps now")
