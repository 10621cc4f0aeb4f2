"""Who is overdue, and moving them on, under the fencing epoch."""

from collections.abc import Sequence
from typing import NamedTuple

from registry.errors import RegistryError
from registry.store.keys import Keys, sent, told
from registry.store.link import Link, checked
from registry.store.scripts import load_scripts

# What one sweep call may carry; the script refuses more.
_LARGEST = 200


class StaleEpochError(RegistryError):
    """Another replica leads under a newer epoch; nothing was swept."""

    code = "stale_epoch"


class Swept(NamedTuple):
    """What became of the agents of one sweep call; see the header of lua/sweep.lua."""

    degraded: int
    expired: int
    removed: int
    early: int
    orphaned: int
    bad: int


class Sweeps:
    """The sweep's two calls over a link of its own. `history` and `retention` (ms) go into every call."""

    def __init__(self, keys: Keys, history: int, retention: int, link: Link, *, shebang: bool = True) -> None:
        self._keys = keys
        self._history = history
        self._retention = retention
        self._link = link
        self._sweep = load_scripts(shebang=shebang)["sweep"]

    async def overdue(self) -> list[str]:
        """Return up to 200 agents whose deadline has passed by the Redis server's time, the longest overdue first."""
        time, lowest = await self._link.exchange(
            [("TIME",), ("ZRANGE", self._keys.deadlines, 0, _LARGEST - 1, "WITHSCORES")]
        )
        seconds, micro = checked(time)
        now = int(seconds) * 1000 + int(micro) // 1000
        flat = checked(lowest)
        return [told(member) for member, score in zip(flat[::2], flat[1::2], strict=True) if int(score) <= now]

    async def sweep(self, ids: Sequence[str], epoch: int) -> Swept:
        """Move these agents one step on. Raises StaleEpochError when another replica leads by now."""
        call = self._sweep.call(
            {**self._keys.shared, "agent_keys…": [self._keys.agent(agent_id) for agent_id in ids]},
            {
                "lead_epoch": epoch,
                "history": self._history,
                "retention": self._retention,
                "ids…": [sent(agent_id) for agent_id in ids],
            },
        )
        word, *rest = checked((await self._link.run([call]))[0])
        if word == b"stale_epoch":
            raise StaleEpochError(f"Epoch {epoch} is over; epoch {rest[0].decode()} sweeps now")
        return Swept(*rest)

    async def epoch(self) -> int:
        """Return the epoch now, 0 when none was ever taken: what a replica without leader election sweeps under."""
        (epoch,) = await self._link.exchange([("GET", self._keys.epoch)])
        return int(checked(epoch) or 0)
