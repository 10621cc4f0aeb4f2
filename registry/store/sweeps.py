"""Who is overdue, and moving them on, under the fencing epoch; setting times right after Redis' clock went back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from registry.errors import RegistryError
from registry.store.keys import Keys, sent, told
from registry.store.redis.pipeline import Link, checked
from registry.store.scripts import load_scripts

# What one sweep call may carry; the script refuses more.
_LARGEST = 200


class StaleEpochError(RegistryError):
    """Another replica leads under a newer epoch; nothing was swept."""

    code = "stale_epoch"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an expired agent stays, and which silence is held; durations are milliseconds.

    More than `share` percent of the healthy agents, but at least `minimum`, that fall silent within `window` are held
    for `duration`.
    """

    retention: int
    window: int
    share: int
    minimum: int
    duration: int


class Due(NamedTuple):
    """What a sweep has to do: agents past their deadline, whether a hold is on or was lately, and a walk to go on.

    `rewind` says when Redis' clock went back, '' where every agent's times are right.
    """

    ids: list[str]
    hold: bool
    rewind: str


class Cursor(NamedTuple):
    """A place in a walk over all agents. Another connection may lead to another server, where it means nothing."""

    at: int
    connection: int


class Swept(NamedTuple):
    """What became of the agents of one sweep call; see the header of lua/sweep.lua."""

    degraded: int
    expired: int
    removed: int
    early: int
    orphaned: int
    bad: int
    graced: int


class Sweeps:
    """The leader's calls over a link of its own. `history` and `limits` go into every sweep."""

    def __init__(self, keys: Keys, history: int, limits: Limits, link: Link, *, shebang: bool = True) -> None:
        scripts = load_scripts(shebang=shebang)
        self._sweep, self._rewind, self._release = (scripts[verb] for verb in ("sweep", "rewind", "release"))
        self._keys = keys
        self._history = history
        self._limits = limits
        self._link = link

    async def due(self) -> Due:
        """Return what is to do; of the agents up to 200, the longest overdue by the Redis server's time first."""
        keys = self._keys
        overdue = ("ZRANGE", keys.deadlines, 0, _LARGEST - 1, "WITHSCORES")
        replies = await self._link.exchange([("TIME",), overdue, ("EXISTS", keys.hold), ("GET", keys.rewind)])
        (seconds, micro), flat, hold, rewind = map(checked, replies)
        now = int(seconds) * 1000 + int(micro) // 1000
        ids = [told(member) for member, score in zip(flat[::2], flat[1::2], strict=True) if int(score) <= now]
        return Due(ids, bool(hold), told(rewind or b""))

    async def sweep(self, ids: Sequence[str], epoch: int) -> Swept | None:
        """Move these agents one step on; None where nobody was, because a mass silence is held.

        Raises StaleEpochError when another replica leads by now.
        """
        limits = self._limits
        call = self._sweep.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in ids]},
            {
                "lead_epoch": epoch,
                "history": self._history,
                "retention": limits.retention,
                "window": limits.window,
                "share": limits.share,
                "minimum": limits.minimum,
                "duration": limits.duration,
                "ids…": [sent(agent_id) for agent_id in ids],
            },
        )
        word, *rest = checked((await self._link.run([call]))[0])
        _refuse_stale(word, rest, epoch)
        return None if word == b"held" else Swept(*rest)

    async def agents_from(self, cursor: Cursor | None) -> tuple[Cursor | None, list[str]]:
        """Walk over all agents, from None until it is None again; each that stays is met at least once."""
        at = cursor.at if cursor is not None and cursor.connection == self._link.opened else 0
        following, flat = await self._scan(at)
        if cursor is not None and cursor.connection != self._link.opened:
            following, flat = await self._scan(0)
        more = Cursor(int(following), self._link.opened) if int(following) else None
        return more, [told(member) for member in flat[::2]]

    async def _scan(self, at: int) -> Any:
        (reply,) = await self._link.exchange([("ZSCAN", self._keys.deadlines, at, "COUNT", _LARGEST)])
        return checked(reply)

    async def rewind(self, ids: Sequence[str], asked: str, epoch: int, *, final: bool) -> bool:
        """Set the times of these agents right; `asked` is Due's, `final` says that these are the last.

        False when the walk is over or has to begin anew: look at what is due again. Raises StaleEpochError.
        """
        for at in range(0, len(ids) or 1, _LARGEST):
            some = ids[at : at + _LARGEST]
            call = self._rewind.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in some]},
                {
                    "lead_epoch": epoch,
                    "asked": sent(asked),
                    "final": int(final and at + _LARGEST >= len(ids)),
                    "ids…": [sent(agent_id) for agent_id in some],
                },
            )
            word, *rest = checked((await self._link.run([call]))[0])
            _refuse_stale(word, rest, epoch)
            if word == b"over":
                return False
        return True

    async def release(self) -> bool:
        """End the hold of a mass silence; False when there is none."""
        word = checked((await self._link.run([self._release.call(self._keys.shared, {})]))[0])[0]
        return bool(word == b"released")

    async def epoch(self) -> int:
        """Return the epoch now, 0 when none was ever taken: what a replica without leader election sweeps under."""
        (epoch,) = await self._link.exchange([("GET", self._keys.epoch)])
        return int(checked(epoch) or 0)


def _refuse_stale(word: bytes, rest: Sequence[bytes], epoch: int) -> None:
    if word == b"stale_epoch":
        raise StaleEpochError(f"Epoch {epoch} is over; epoch {rest[0].decode()} sweeps now")
