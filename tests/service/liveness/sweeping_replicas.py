"""Replicas that elect a leader and sweep, on clocks the tests advance."""

from datetime import timedelta
from typing import Any

import redis

from registry.config.settings import Settings
from registry.service.liveness.leader_election import LeaderElection
from registry.service.liveness.sweeper import Sweeper
from registry.store.agents import RegistrationWrite
from registry.store.redis.connection import endpoint_from_url
from registry.store.store import Store
from registry.store.sweeps import SweepResult
from tests.support.builders import a_spec
from tests.support.server_time import make_overdue

LEASE, DEADLINE, RETRY = 15.0, 10.0, 2.0
LOCK = "{mesh}:leader"


class Replica:
    """The election and the sweep of one replica, on a clock that only the test advances."""

    def __init__(self, url: str, name: str, *, elects: bool = True) -> None:
        settings = Settings(
            instance_id=name,
            leader_election=elects,
            lease_duration=timedelta(seconds=LEASE),
            renew_deadline=timedelta(seconds=DEADLINE),
            retry_period=timedelta(seconds=RETRY),
            retention=timedelta(hours=1),
        )
        self.now = 1000.0
        self.swept: list[SweepResult] = []
        self.sweep_takes = 0.0
        self.store = Store(endpoint_from_url(url), settings, lambda _script, _seconds: None)
        self.election = LeaderElection(self.store.leadership, settings, clock=lambda: self.now)
        self.sweeper = Sweeper(self.election, self.store.sweeps, on_swept=self._note)

    def _note(self, swept: SweepResult) -> None:
        self.swept.append(swept)
        self.now += self.sweep_takes

    async def look(self, *, after: float = 0.0) -> bool:
        """Look once, so many seconds later by this replica's own clock; return whether it leads then."""
        self.now += after
        await self.sweeper.tick()
        return self.election.is_leader


Pair = tuple[Replica, Replica]


async def overdue_agent(replica: Replica, raw: redis.Redis, agent_id: str = "a") -> None:
    """Let an agent be, whose deadline has just passed."""
    await replica.store.agents.register(RegistrationWrite(agent_id, a_spec(agent_id), 60_000, 120_000))
    make_overdue(raw, agent_id)


def epoch(raw: redis.Redis) -> int:
    """Return the epoch as the store has it."""
    return int(raw.get("{mesh}:epoch") or 0)


def went(raw: redis.Redis) -> list[str]:
    """Return who degraded, by the log, as often as it says so."""
    entries: Any = raw.xrange("{mesh}:log")
    return [fields["id"] for _, fields in entries if fields["reason"] == "degraded"]


def status(raw: redis.Redis, agent_id: str = "a") -> str:
    """Return an agent's status as the store has it."""
    return str(raw.hget(f"{{mesh}}:agent:{agent_id}", "status"))
