"""The store of one mesh: everything the registry does in Redis, each part over a connection of its own."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta

from registry.compat.mcpmesh.jobs_store import Dispatch
from registry.config.settings import Settings
from registry.store.agents import Agents
from registry.store.change_log import ChangeLog
from registry.store.change_notifier import Bell
from registry.store.integrity import Checkup
from registry.store.keys import Keys
from registry.store.leader import Leadership
from registry.store.redis.connection import Server
from registry.store.redis.pipeline import Link
from registry.store.resolution_store import Wires
from registry.store.restore import Backups
from registry.store.server_health import Vitals
from registry.store.sweeps import Limits, Sweeps


class Store:
    """Opens nothing by itself: every link connects when it is first used, and again after any trouble.

    `observe` is told the script and the seconds of each script call.
    """

    def __init__(self, server: Server, settings: Settings, observe: Callable[[str, float], None]) -> None:
        keys = Keys(settings.mesh)
        shebang = server.shebang

        def link() -> Link:
            made = Link(server.connect, observe=observe)
            self._links.append(made)
            return made

        self._links: list[Link] = []
        self._keys = keys
        self._server = server
        history = settings.watch_history
        self.agents = Agents(
            keys,
            history,
            beats=link(),
            writes=link(),
            reads=link(),
            shebang=shebang,
            acks=settings.write_acks,
        )
        self.wires = Wires(keys, link(), shebang=shebang)
        self.changes = ChangeLog(keys, history, link(), shebang=shebang)
        housekeeping = link()
        limits = _limits(settings)
        self.sweeps = Sweeps(keys, history, limits, housekeeping, shebang=shebang)
        self.backups = Backups(keys, history, limits.retention, housekeeping, shebang=shebang)
        self.checkup = Checkup(keys, housekeeping, shebang=shebang)
        self.vitals = Vitals(keys, housekeeping, shebang=shebang, acks=settings.write_acks)
        self.dispatch = Dispatch(keys, link(), shebang=shebang, acks=settings.write_acks)
        self.leadership = Leadership(
            keys,
            housekeeping,
            instance=settings.instance_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            shebang=shebang,
        )

    def bell(self, ring: Callable[[], None]) -> Bell:
        """Return a bell that calls `ring` for each new entry of the log."""
        return Bell(self._keys, self._server.connect, ring)

    async def close(self) -> None:
        """Finish what was accepted, then close every connection for good; where that is cancelled, at once."""
        try:
            await self.agents.close()
            await self.wires.close()
        finally:
            for link in self._links:
                await link.close()


def _limits(settings: Settings) -> Limits:
    return Limits(
        retention=_milliseconds(settings.retention),
        window=_milliseconds(settings.agent_timeout),
        share=settings.hold_share,
        minimum=settings.hold_minimum,
        duration=_milliseconds(settings.hold_duration),
    )


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
