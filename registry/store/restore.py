"""Putting agents back, and beginning a new history when what is stored was changed behind the log's back."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from registry.model.agent import Held
from registry.store.codec import edges_sent
from registry.store.keys import Keys, sent
from registry.store.redis.pipeline import Link, checked
from registry.store.scripts import load_scripts

# What one call may carry; the script refuses more.
_LARGEST = 200


class Restored(NamedTuple):
    """How many agents were put back, and how many were there already and stayed."""

    restored: int
    kept: int


class Backups:
    """The calls of a restore over a link of its own. `history` is what the log keeps, `retention` is ms."""

    def __init__(self, keys: Keys, history: int, retention: int, link: Link, *, shebang: bool = True) -> None:
        scripts = load_scripts(shebang=shebang)
        self._restore, self._restart = scripts["restore"], scripts["restart"]
        self._keys = keys
        self._history = history
        self._retention = retention
        self._link = link

    async def restart(self, least: int = 0) -> int:
        """Begin a new history above a version; return the first of it. Replicas fill anew, watches list again."""
        call = self._restart.call(
            self._keys.shared, {"fresh": secrets.token_hex(8), "keep": self._history, "least": least}
        )
        _, begun = checked((await self._link.run([call]))[0])
        return int(begun)

    async def restore(self, agents: Sequence[Held]) -> Restored:
        """Put agents back that are not there. They keep their status as if Redis had been away all the time."""
        restored = kept = 0
        for at in range(0, len(agents), _LARGEST):
            part = agents[at : at + _LARGEST]
            call = self._restore.call(
                {**self._keys.shared, "agent_keys…": [self._keys.agent(held.agent.id) for held in part]},
                {"history": self._history, "agents…": [field for held in part for field in self._fields(held)]},
            )
            _, added, present = checked((await self._link.run([call]))[0])
            restored, kept = restored + int(added), kept + int(present)
        return Restored(restored, kept)

    def _fields(self, held: Held) -> Sequence[bytes | str | int]:
        agent = held.agent
        rest = {"expired": self._retention, "degraded": agent.eviction - agent.timeout}.get(agent.status, agent.timeout)
        return (
            sent(agent.id),
            agent.spec,
            agent.status,
            "1" if agent.draining else "0",
            agent.created,
            agent.updated,
            agent.timeout,
            agent.eviction,
            "" if held.heartbeat is None else held.heartbeat,
            rest,
            edges_sent(agent.profile.edges),
        )
