"""Replicas that elect a leader and sweep, on clocks that the tests advance."""

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
    """The election and the sweeper of one replica, on a clock that only the test advances."""

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
        self.sweep_duration = 0.0
        self.store = Store(endpoint_from_url(url), settings, lambda _script, _seconds: None)
        self.election = LeaderElection(self.store.leadership, settings, clock=lambda: self.now)
        self.sweeper = Sweeper(self.election, self.store.sweeps, on_swept=self._note)

    def _note(self, swept: SweepResult) -> None:
        self.swept.append(swept)
        self.now += self.sweep_duration

    async def tick(self, *, after: float = 0.0) -> bool:
        """Advance the clock, then tick once; return whether the replica leads."""
        self.now += after
        await self.sweeper.tick()
        return self.election.is_leader


Pair = tuple[Replica, Replica]


async def create_overdue_agent(replica: Replica, redis_client: redis.Redis, agent_id: str = "a") -> None:
    """Register an agent whose deadline has just passed."""
    await replica.store.agents.register(RegistrationWrite(agent_id, a_spec(agent_id), 60_000, 120_000))
    make_overdue(redis_client, agent_id)


def epoch(redis_client: redis.Redis) -> int:
    """Return the stored epoch."""
    return int(redis_client.get("{mesh}:epoch") or 0)


def degraded_ids(redis_client: redis.Redis) -> list[str]:
    """Return the id of each logged transition to degraded."""
    entries: Any = redis_client.xrange("{mesh}:log")
    return [fields["id"] for _, fields in entries if fields["reason"] == "degraded"]


def status(redis_client: redis.Redis, agent_id: str = "a") -> str:
    """Return the stored status of an agent."""
    return str(redis_client.hget(f"{{mesh}}:agent:{agent_id}", "status"))
