"""Replicas as processes on one store, under load during faults, with a final verification."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import httpx2

from tests.support.call_journal import ClientCall, Tolerances, check_calls, check_overdue
from tests.support.change_log_recorder import ChangeLogRecorder
from tests.support.consistency import find_inconsistencies
from tests.support.faulty_tcp_proxy import FaultyTcpProxy
from tests.support.load_clients import (
    IntermittentAgent,
    ListReader,
    LoadContext,
    PersistentAgent,
    RandomWriter,
    WatchFollower,
    followers,
)
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.watch_recorder import check_recording

DURABLE_ARGUMENTS = ("--appendonly", "yes", "--appendfsync", "always")
# The lease of the seeds is 15 s; a third of it makes the same thing happen sooner.
LEASE_S = 3.0
ELECTION_SETTINGS = {
    "LEADER_ELECTION_LEASE_DURATION": f"{LEASE_S:g}s",
    "LEADER_ELECTION_RENEW_DEADLINE": "2s",
    "LEADER_ELECTION_RETRY_PERIOD": "500ms",
}
# The load under every fault: how many there are of whom.
WRITER_COUNT, PERSISTENT_AGENT_COUNT, INTERMITTENT_AGENT_COUNT = 3, 4, 2
# What an agent that falls silent now and then may be silent for, in seconds; one that strives has more, since a call of
# a replica that is cut off takes a while to fail.
INTERMITTENT_AGENT_TIMEOUT_S, PERSISTENT_AGENT_TIMEOUT_S = 2.0, 6.0


@dataclass
class FleetCounts:
    """What one test counted."""

    calls: int = 0
    acknowledged: int = 0
    lists: int = 0
    events: int = 0


@dataclass
class FleetUnderLoad:
    """Three replicas or so, their store, and what goes on. `proxies` stand between each replica and the store, if any.

    `tolerances` say what the fault excuses, `settle_timeout_s` how long everybody may take to come to the end.
    """

    server: RedisServer
    replicas: list[Replica]
    proxies: list[FaultyTcpProxy]
    log_recorder: ChangeLogRecorder
    load: LoadContext
    followers: Sequence[WatchFollower]
    tolerances: Tolerances = field(default_factory=Tolerances)
    settle_timeout_s: float = 15.0
    data_damaged: bool = False

    @property
    def urls(self) -> list[str]:
        """Where the replicas listen."""
        return [replica.url for replica in self.replicas]

    def tolerate(self, *, unresponsive: Sequence[Replica] = (), extra_delay_s: float = 0.0) -> None:
        """Say that these replicas may leave calls unanswered, or that silence may be marked so many seconds later."""
        names = self.tolerances.unresponsive_urls.union(replica.url for replica in unresponsive)
        self.tolerances = replace(
            self.tolerances, unresponsive_urls=names, max_delay_s=self.tolerances.max_delay_s + extra_delay_s
        )

    def tolerate_unanswered(self, url: str) -> None:
        """Say that at this address calls may stay unanswered."""
        self.tolerances = replace(self.tolerances, unresponsive_urls=self.tolerances.unresponsive_urls | {url})

    async def wait_for_writes(self, count: int = 30, timeout: float = 15.0) -> float:
        """Wait until so many more writes were acknowledged; return the seconds until the first of them."""
        began, deeds = time.monotonic(), self.load.journal.calls

        def since() -> list[float]:
            return [
                deed.ended for deed in deeds if deed.started >= began and deed.status == 200 and deed.kind != "list"
            ]

        await async_wait_until(lambda: len(since()) >= count, description="writes are taken", timeout=timeout)
        return min(since()) - began

    async def wait_for_refusals(self, count: int = 5, timeout: float = 8.0) -> None:
        """Wait until so many more calls were answered with 503."""
        before = self.refusal_count
        await async_wait_until(
            lambda: self.refusal_count >= before + count, description="calls are refused", timeout=timeout
        )

    @property
    def refusal_count(self) -> int:
        """How many calls were answered with 503 so far."""
        return sum(deed.status == 503 for deed in self.load.journal.calls)

    def calls_since(self, moment: float) -> list[ClientCall]:
        """Return the calls that were made after a monotonic moment."""
        return [deed for deed in self.load.journal.calls if deed.started >= moment]

    async def wait_for_resumes(self) -> None:
        """Wait until every follower went on elsewhere once more, so that what happened has met all of them."""
        before = [follower.ended_streams + follower.relist_count for follower in self.followers]
        await async_wait_until(
            lambda: all(
                each.ended_streams + each.relist_count > ends for each, ends in zip(self.followers, before, strict=True)
            ),
            description="every follower went on",
            timeout=self.settle_timeout_s,
        )

    async def wait_for_degraded(self, timeout: float = 15.0) -> None:
        """Wait until somebody who fell silent after this call is marked."""
        since = self.log_recorder.server_time_ms()

        def marks() -> bool:
            self.log_recorder.read()
            return any(
                change.reason == "degraded" and (change.heartbeat or 0) >= since
                for change in self.log_recorder.logs[-1].changes
            )

        await async_wait_until(marks, description="who falls silent is marked", timeout=timeout)

    async def kill_replica(self, number: int) -> Replica:
        """End a replica as a crash would."""
        replica = self.replicas[number]
        self.tolerate(unresponsive=[replica])
        await asyncio.to_thread(replica.kill)
        return replica

    async def wait_for_leader(self, timeout: float = 10.0, *, other_than: int = -1) -> int:
        """Wait until a replica says that it leads; return its number."""

        async def leads() -> list[int]:
            found = [number for number in range(len(self.replicas)) if number != other_than]
            states = [await self.get_health(number) for number in found]
            return [
                number + 1 for number, state in zip(found, states, strict=True) if state and state["leader"]["leading"]
            ]

        return (await async_wait_until(leads, description="a replica leads", timeout=timeout))[0] - 1

    async def get_health(self, number: int) -> dict[str, Any]:
        """Return what a replica says of itself; nothing where it does not answer."""
        with contextlib.suppress(httpx2.TransportError):
            async with httpx2.AsyncClient(timeout=1) as client:
                state: dict[str, Any] = (await client.get(f"{self.replicas[number].url}/health")).json()
                return state
        return {}

    async def is_ready(self, number: int) -> bool:
        """Tell whether a replica's /ready is 200."""
        async with httpx2.AsyncClient(timeout=2) as client:
            return (await client.get(f"{self.replicas[number].url}/ready")).status_code == 200

    async def wait_until_all_ready(self, timeout: float = 2.0) -> None:
        """Wait until every replica is ready."""

        async def ready() -> bool:
            return all([await self.is_ready(number) for number in range(len(self.replicas))])

        await async_wait_until(ready, description="every replica is ready", timeout=timeout)

    async def read_metric(self, number: int, name: str) -> float:
        """Return one number a replica exposes."""
        async with httpx2.AsyncClient(timeout=2) as client:
            text = (await client.get(f"{self.replicas[number].url}/metrics/prometheus")).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.split()[0] == name))

    async def wait_until_settled(self) -> None:
        """Let nobody write any more, and wait until every follower and every replica has come to the end; once."""
        if self.load.all_stopped.is_set():
            return
        self.load.writers_stopped.set()
        last = 0

        async def come() -> bool:
            nonlocal last
            async with httpx2.AsyncClient(timeout=4) as client:
                answers = await asyncio.gather(*(client.get(f"{url}/agents") for url in self.load.urls))
            if {answer.status_code for answer in answers} != {200}:
                return False
            last = max(int(answer.json()["resource_version"]) for answer in answers)
            return True

        await async_wait_until(come, description="every replica lists", timeout=self.settle_timeout_s)
        await async_wait_until(
            lambda: all(follower.last_version >= last for follower in self.followers),
            description=f"every follower reached {last}",
            timeout=self.settle_timeout_s,
        )
        self.load.all_stopped.set()

    def verify(self) -> FleetCounts:
        """Hold everything that was written down against the log. Raises the Violation it finds."""
        truth, journal = self.log_recorder, self.load.journal
        truth.read()
        pasts = truth.logs
        check_calls(journal, pasts, self.tolerances)
        # A log that was emptied and opened before anybody wrote begins a history that leads on from the one before.
        assert len(set(truth.timelines)) >= len(pasts), "a loss of history is told by another history id"
        for past in pasts:
            assert list(past.gaps()) == []
        for follower in self.followers:
            for recording in follower.recordings:
                check_recording(recording, pasts)
            assert follower.ended_streams
            assert follower.recordings[-1].start_version >= pasts[-1].first
            assert truth.entries_removed or not follower.relist_count, "410 is for a log that was taken away"
        self._check_store()
        return FleetCounts(
            calls=len(journal.calls),
            acknowledged=sum(deed.status == 200 for deed in journal.calls),
            lists=len(journal.acknowledged("list")),
            events=sum(len(each.events) for follower in self.followers for each in follower.recordings),
        )

    def _check_store(self) -> None:
        """Compare what the store has with what the log leaves, both of one moment: the sweep goes on."""
        raw = self.log_recorder.redis
        while True:
            self.log_recorder.read()
            past = self.log_recorder.logs[-1]
            left = past.agents()
            heartbeats: Any = raw.zrange("{mesh}:heartbeats", 0, -1, withscores=True)
            deadlines: Any = raw.zrange("{mesh}:deadlines", 0, -1)
            stored = {name.decode() for name in deadlines}
            held: dict[str, Any] = {name: raw.hgetall("{mesh}:agent:" + name) for name in stored}
            wrong = find_inconsistencies(raw)
            if int(raw.get("{mesh}:version") or 0) == past.last:
                break
        heard = {name.decode(): int(at) for name, at in heartbeats}
        check_overdue(past, heard, self.log_recorder.server_time_ms(), self.tolerances.max_delay_s)
        if not self.data_damaged:
            assert not wrong
            assert stored == set(left)
            for agent in left.values():
                found = held[agent.id]
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
    timeout: float = 45.0,
    on_counted: Callable[[FleetCounts], None] = lambda _counts: None,
    env_by_replica: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    command_prefix: Sequence[str] = (),
    **env: str,
) -> AsyncIterator[FleetUnderLoad]:
    """Run replicas under load; after the block, wait until the load has settled and verify every guarantee.

    `server` is configured by the caller; otherwise a server with `arguments` is started. `timeout` limits the whole in
    seconds. Without `load` there are followers and readers only. `env` adds to the environment of all replicas,
    `env_by_replica` to that of single ones, and `command_prefix` precedes their command.
    """
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(timeout):
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
        truth = stack.enter_context(ChangeLogRecorder(store.url))
        crowd = LoadContext([each.url for each in processes])
        fleet = FleetUnderLoad(store, processes, proxies, truth, crowd, followers(crowd))
        async with asyncio.TaskGroup() as group:
            writing = [
                group.create_task(each.run())
                for each in (_writer_clients(crowd, persistent_agent_timeout_s) if load else ())
            ]
            watching = [group.create_task(follower.run()) for follower in fleet.followers]
            watching.append(group.create_task(ListReader(crowd).run()))
            if load:
                await fleet.wait_for_writes()
            await async_wait_until(lambda: all(each.recordings for each in fleet.followers), description="all follow")
            yield fleet
            await fleet.wait_until_settled()
            await asyncio.gather(*writing, *watching)
        on_counted(await asyncio.to_thread(fleet.verify))


def _writer_clients(
    crowd: LoadContext, agent_timeout_s: float
) -> Sequence[RandomWriter | PersistentAgent | IntermittentAgent]:
    return [
        *(RandomWriter(crowd, number) for number in range(WRITER_COUNT)),
        *(
            PersistentAgent(crowd, f"striver-{number}", timeout=agent_timeout_s)
            for number in range(PERSISTENT_AGENT_COUNT)
        ),
        *(
            IntermittentAgent(crowd, f"mortal-{number}", timeout=INTERMITTENT_AGENT_TIMEOUT_S)
            for number in range(INTERMITTENT_AGENT_COUNT)
        ),
    ]


def _kill_all(replicas: Sequence[Replica]) -> None:
    """End what still runs, paused or not."""
    for replica in replicas:
        replica.kill()
