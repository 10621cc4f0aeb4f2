"""Replicas as processes on one store, under load during faults, with a final verification."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import httpx2

from tests.support.call_journal import ClientCall, Tolerances, check_calls, overdue_agents
from tests.support.change_log_recorder import ChangeLogRecorder
from tests.support.consistency import find_inconsistencies
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.load_clients import (
    IntermittentAgent,
    ListReader,
    LoadContext,
    PersistentAgent,
    RandomWriter,
    WatchFollower,
    followers,
)
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until, wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.watch_recorder import check_recording

DURABLE_ARGUMENTS = ("--appendonly", "yes", "--appendfsync", "always")
# The lease of the seeds is 15 s; a fifth of it makes tests faster.
LEASE_S = scaled(3)
ELECTION_SETTINGS = {
    "LEADER_ELECTION_LEASE_DURATION": f"{LEASE_S:.3f}s",
    "LEADER_ELECTION_RENEW_DEADLINE": f"{scaled(2):.3f}s",
    "LEADER_ELECTION_RETRY_PERIOD": "500ms",
}
# The number of clients of each kind during every fault.
WRITER_COUNT, PERSISTENT_AGENT_COUNT, INTERMITTENT_AGENT_COUNT = 3, 4, 2
# Timeouts of the agents in seconds. A persistent agent has a longer one, because a call to an unreachable replica takes
# a while to fail.
INTERMITTENT_AGENT_TIMEOUT_S, PERSISTENT_AGENT_TIMEOUT_S = 2.0, 6.0
# Seconds from the return of Redis to the first successful write.
RECOVERY_S = 2.0


@dataclass
class FleetUnderLoad:
    """Replicas, their store and their load. `proxies` are between each replica and the store, if there are any.

    `tolerances` are the expected deviations, `late` counts the events that took longer than on an idle machine.
    """

    server: RedisServer
    replicas: list[Replica]
    proxies: list[FaultyTcpProxy]
    log_recorder: ChangeLogRecorder
    load: LoadContext
    followers: Sequence[WatchFollower]
    tolerances: Tolerances = field(default_factory=Tolerances)
    late: Counter[str] = field(default_factory=Counter)
    data_damaged: bool = False

    @property
    def urls(self) -> list[str]:
        """The URLs of the replicas."""
        return [replica.url for replica in self.replicas]

    def tolerate(self, *, unresponsive: Sequence[Replica] = (), extra_delay_s: float = 0.0) -> None:
        """Expect these replicas to leave calls without a response, or degradations to be later."""
        urls = self.tolerances.unresponsive_urls.union(replica.url for replica in unresponsive)
        self.tolerances = replace(
            self.tolerances, unresponsive_urls=urls, max_delay_s=self.tolerances.max_delay_s + extra_delay_s
        )

    def tolerate_unanswered(self, url: str) -> None:
        """Allow calls to this URL to have no response."""
        self.tolerances = replace(self.tolerances, unresponsive_urls=self.tolerances.unresponsive_urls | {url})

    async def wait_for_writes(self, count: int = 30) -> None:
        """Wait until `count` more writes are acknowledged."""
        began = time.monotonic()
        await async_wait_until(
            lambda: sum(call.status == 200 and call.kind != "list" for call in self.calls_since(began)) >= count,
            description="writes are acknowledged",
        )

    async def wait_for_recovery(self) -> None:
        """Wait until a write is acknowledged after a fault."""
        began = time.monotonic()
        await self.wait_for_writes(1)
        self.count_if_late("recoveries", began, RECOVERY_S)

    def count_if_late(self, events: str, since: float, expected_s: float) -> None:
        """Count an event that happened now as late if that took more than `expected_s` since a monotonic time."""
        self.late[f"late {events}"] += time.monotonic() - since > expected_s

    async def wait_for_refusals(self, count: int = 5) -> None:
        """Wait until `count` more responses are 503."""
        before = self.refusal_count
        await async_wait_until(lambda: self.refusal_count >= before + count, description="responses are 503")

    @property
    def refusal_count(self) -> int:
        """The number of 503 responses so far."""
        return sum(call.status == 503 for call in self.load.journal.calls)

    def calls_since(self, moment: float) -> list[ClientCall]:
        """Return the calls that started after a monotonic time."""
        return [call for call in self.load.journal.calls if call.started >= moment]

    async def wait_for_resumes(self) -> None:
        """Wait until every follower has resumed on another replica or listed again."""
        before = [follower.ended_streams + follower.relist_count for follower in self.followers]
        await async_wait_until(
            lambda: all(
                each.ended_streams + each.relist_count > count
                for each, count in zip(self.followers, before, strict=True)
            ),
            description="every follower resumed",
        )

    async def wait_for_degraded(self) -> None:
        """Wait until an agent whose last heartbeat is later than this call is degraded."""
        since = self.log_recorder.server_time_ms()

        def is_degraded() -> bool:
            self.log_recorder.read()
            return any(
                change.reason == "degraded" and (change.heartbeat or 0) >= since
                for change in self.log_recorder.logs[-1].changes
            )

        await async_wait_until(is_degraded, description="an overdue agent is degraded")

    async def kill_replica(self, number: int) -> Replica:
        """Kill a replica."""
        replica = self.replicas[number]
        self.tolerate(unresponsive=[replica])
        await asyncio.to_thread(replica.kill)
        return replica

    async def wait_for_leader(self, *, other_than: int = -1) -> int:
        """Wait until a replica reports that it is the leader; return its number."""

        async def leader_numbers() -> list[int]:
            found = [number for number in range(len(self.replicas)) if number != other_than]
            states = [await self.get_health(number) for number in found]
            return [
                number + 1 for number, state in zip(found, states, strict=True) if state and state["leader"]["leading"]
            ]

        return (await async_wait_until(leader_numbers, description="a replica is the leader"))[0] - 1

    async def get_health(self, number: int, timeout: float = REQUEST_TIMEOUT_S) -> dict[str, Any]:
        """Return the health document of a replica, empty if it does not respond within `timeout` seconds."""
        with contextlib.suppress(httpx2.TransportError):
            async with httpx2.AsyncClient(timeout=timeout) as client:
                state: dict[str, Any] = (await client.get(f"{self.replicas[number].url}/health")).json()
                return state
        return {}

    async def is_ready(self, number: int) -> bool:
        """Return whether /ready of a replica is 200."""
        async with httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
            return (await client.get(f"{self.replicas[number].url}/ready")).status_code == 200

    async def wait_until_all_ready(self) -> None:
        """Wait until every replica is ready."""

        async def all_ready() -> bool:
            return all([await self.is_ready(number) for number in range(len(self.replicas))])

        await async_wait_until(all_ready, description="every replica is ready")

    async def read_metric(self, number: int, name: str) -> float:
        """Return the value of a metric of a replica."""
        async with httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
            text = (await client.get(f"{self.replicas[number].url}/metrics/prometheus")).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.split()[0] == name))

    async def wait_until_settled(self) -> None:
        """Stop the writers, and wait until every follower and every replica has read the last change. Runs once."""
        if self.load.all_stopped.is_set():
            return
        self.load.writers_stopped.set()
        last = 0

        async def every_replica_lists() -> bool:
            nonlocal last
            async with httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
                responses = await asyncio.gather(*(client.get(f"{url}/agents") for url in self.load.urls))
            if {response.status_code for response in responses} != {200}:
                return False
            last = max(int(response.json()["resource_version"]) for response in responses)
            return True

        await async_wait_until(every_replica_lists, description="every replica lists")
        await async_wait_until(
            lambda: all(follower.last_version >= last for follower in self.followers),
            description=f"every follower reached {last}",
        )
        self.load.all_stopped.set()

    def verify(self) -> Counter[str]:
        """Check all recorded calls and events against the log; return counts. Raises the Violation that is found."""
        recorder, journal = self.log_recorder, self.load.journal
        recorder.read()
        logs = recorder.logs
        late = check_calls(journal, logs, self.tolerances) + self.late
        # A log that was emptied and opened again before the first write starts a timeline whose versions continue.
        assert len(set(recorder.timelines)) >= len(logs), "lost data starts another timeline"
        for log in logs:
            assert list(log.gaps()) == []
        for follower in self.followers:
            for recording in follower.recordings:
                check_recording(recording, logs)
            assert follower.ended_streams
            assert follower.recordings[-1].start_version >= logs[-1].first
            assert recorder.entries_removed or not follower.relist_count, "410 only after entries were removed"
        wait_until(self._no_agent_is_overdue, description="overdue agents are degraded")
        self._check_store()
        counts = {
            "calls": len(journal.calls),
            "acknowledged": sum(call.status == 200 for call in journal.calls),
            "lists": len(journal.acknowledged("list")),
            "events": sum(len(each.events) for follower in self.followers for each in follower.recordings),
        }
        return Counter(counts) + late

    def _no_agent_is_overdue(self) -> bool:
        recorder = self.log_recorder
        recorder.read()
        found: Any = recorder.redis.zrange("{mesh}:heartbeats", 0, -1, withscores=True)
        heartbeats = {name.decode(): int(at) for name, at in found}
        return not overdue_agents(recorder.logs[-1], heartbeats, recorder.server_time_ms(), self.tolerances.max_delay_s)

    def _check_store(self) -> None:
        """Compare the store with the log at the same version; repeat while the leader writes."""
        client = self.log_recorder.redis
        while True:
            self.log_recorder.read()
            log = self.log_recorder.logs[-1]
            expected = log.agents()
            deadlines: Any = client.zrange("{mesh}:deadlines", 0, -1)
            stored = {name.decode() for name in deadlines}
            records: dict[str, Any] = {name: client.hgetall("{mesh}:agent:" + name) for name in stored}
            inconsistencies = find_inconsistencies(client)
            if int(client.get("{mesh}:version") or 0) == log.last:
                break
        if not self.data_damaged:
            assert not inconsistencies
            assert stored == set(expected)
            for agent in expected.values():
                found = records[agent.id]
                assert (int(found[b"version"]), found[b"spec"]) == (agent.version, agent.spec), "a partial record"


@contextlib.asynccontextmanager
async def fleet_under_load(
    replicas: int = 3,
    *,
    server: RedisServer | None = None,
    arguments: Sequence[str] = DURABLE_ARGUMENTS,
    proxied: bool = False,
    load: bool = True,
    persistent_agent_timeout_s: float = PERSISTENT_AGENT_TIMEOUT_S,
    on_counted: Callable[[Counter[str]], None] = lambda _counts: None,
    env_by_replica: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    command_prefix: Sequence[str] = (),
    **env: str,
) -> AsyncIterator[FleetUnderLoad]:
    """Run replicas under load; after the block, wait until the load has settled and verify every guarantee.

    `server` is configured by the caller; otherwise a server with `arguments` is started. Without `load` there are
    followers and readers only. `env` adds to the environment of all replicas, `env_by_replica` to that of single ones,
    and `command_prefix` precedes their command.
    """
    async with contextlib.AsyncExitStack() as stack:
        if server is None:
            server = stack.enter_context(RedisServer(*arguments, tcp=True))
        store = server
        proxies = [
            await stack.enter_async_context(FaultyTcpProxy(store.url)) for _ in range(replicas if proxied else 0)
        ]
        processes = [
            Replica(
                proxies[number].url if proxied else store.url,
                command_prefix=command_prefix,
                **{"LOG_LEVEL": "info", "REGISTRY_LOG_FORMAT": "json"}
                | {"REGISTRY_INSTANCE_ID": f"replica-{number}", "AGENT_TIMEOUT": "10m"}
                | ELECTION_SETTINGS
                | env
                | dict(env_by_replica.get(number, {})),
            )
            for number in range(replicas)
        ]
        stack.callback(_kill_all, processes)
        await asyncio.gather(*(asyncio.to_thread(each.start) for each in processes))
        recorder = stack.enter_context(ChangeLogRecorder(store.url))
        context = LoadContext([each.url for each in processes])
        fleet = FleetUnderLoad(store, processes, proxies, recorder, context, followers(context))
        async with asyncio.TaskGroup() as group:
            writing = [
                group.create_task(each.run())
                for each in (_writer_clients(context, persistent_agent_timeout_s) if load else ())
            ]
            watching = [group.create_task(follower.run()) for follower in fleet.followers]
            watching.append(group.create_task(ListReader(context).run()))
            if load:
                await fleet.wait_for_writes()
            await async_wait_until(
                lambda: all(each.recordings for each in fleet.followers), description="all followers have a recording"
            )
            yield fleet
            await fleet.wait_until_settled()
            await asyncio.gather(*writing, *watching)
        on_counted(await asyncio.to_thread(fleet.verify))


def _writer_clients(
    context: LoadContext, agent_timeout_s: float
) -> Sequence[RandomWriter | PersistentAgent | IntermittentAgent]:
    return [
        *(RandomWriter(context, number) for number in range(WRITER_COUNT)),
        *(
            PersistentAgent(context, f"persistent-{number}", timeout=agent_timeout_s)
            for number in range(PERSISTENT_AGENT_COUNT)
        ),
        *(
            IntermittentAgent(context, f"intermittent-{number}", timeout=INTERMITTENT_AGENT_TIMEOUT_S)
            for number in range(INTERMITTENT_AGENT_COUNT)
        ),
    ]


def _kill_all(replicas: Sequence[Replica]) -> None:
    """Kill all replicas, also paused ones."""
    for replica in replicas:
        replica.kill()
