"""Replicas as processes on one store, under load from beginning to end; at the end every promise is checked."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import httpx2

from tests.support.call_journal import Deed, Terms, check_deeds, check_silence
from tests.support.change_log_recorder import Truth
from tests.support.consistency import inconsistencies
from tests.support.faulty_tcp_proxy import Proxy
from tests.support.load_clients import Crowd, Follower, Mortal, Reader, Striver, Writer, followers
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.watch_recorder import check

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# The lease of the seeds is 15 s; a third of it makes the same thing happen sooner.
LEASE = 3.0
ELECTION = {
    "LEADER_ELECTION_LEASE_DURATION": f"{LEASE:g}s",
    "LEADER_ELECTION_RENEW_DEADLINE": "2s",
    "LEADER_ELECTION_RETRY_PERIOD": "500ms",
}
# The load under every fault: how many there are of whom.
WRITERS, STRIVERS, MORTALS = 3, 4, 2
# What an agent that falls silent now and then may be silent for, in seconds; one that strives has more, since a call of
# a replica that is cut off takes a while to fail.
MORTAL_TIMEOUT, STRIVER_TIMEOUT = 2.0, 6.0


@dataclass
class Tally:
    """What one test counted."""

    calls: int = 0
    acknowledged: int = 0
    lists: int = 0
    events: int = 0


@dataclass
class Fleet:
    """Three replicas or so, their store, and what goes on. `proxies` stand between each replica and the store, if any.

    `terms` say what the fault excuses, `patient` how long everybody may take to come to the end.
    """

    server: RedisServer
    replicas: list[Replica]
    proxies: list[Proxy]
    truth: Truth
    crowd: Crowd
    followers: Sequence[Follower]
    terms: Terms = field(default_factory=Terms)
    patient: float = 15.0
    poisoned: bool = False

    @property
    def urls(self) -> list[str]:
        """Where the replicas listen."""
        return [replica.url for replica in self.replicas]

    def excuse(self, *, mute: Sequence[Replica] = (), late: float = 0.0) -> None:
        """Say that these replicas may leave calls unanswered, or that silence may be marked so many seconds later."""
        names = self.terms.mute.union(replica.url for replica in mute)
        self.terms = replace(self.terms, mute=names, late=self.terms.late + late)

    def lossy(self, url: str) -> None:
        """Say that at this address calls may stay unanswered."""
        self.terms = replace(self.terms, mute=self.terms.mute | {url})

    async def wrote(self, more: int = 30, timeout: float = 15.0) -> float:
        """Wait until so many more writes were acknowledged; return the seconds until the first of them."""
        began, deeds = time.monotonic(), self.crowd.journal.deeds

        def since() -> list[float]:
            return [deed.ended for deed in deeds if deed.began >= began and deed.status == 200 and deed.what != "list"]

        await async_wait_until(lambda: len(since()) >= more, description="writes are taken", timeout=timeout)
        return min(since()) - began

    async def refused(self, more: int = 5, timeout: float = 8.0) -> None:
        """Wait until so many more calls were answered with 503."""
        before = self.refusals
        await async_wait_until(lambda: self.refusals >= before + more, description="calls are refused", timeout=timeout)

    @property
    def refusals(self) -> int:
        """How many calls were answered with 503 so far."""
        return sum(deed.status == 503 for deed in self.crowd.journal.deeds)

    def since(self, moment: float) -> list[Deed]:
        """Return the calls that were made after a monotonic moment."""
        return [deed for deed in self.crowd.journal.deeds if deed.began >= moment]

    async def went_on(self) -> None:
        """Wait until every follower went on elsewhere once more, so that what happened has met all of them."""
        before = [follower.ends + follower.gone for follower in self.followers]
        await async_wait_until(
            lambda: all(each.ends + each.gone > ends for each, ends in zip(self.followers, before, strict=True)),
            description="every follower went on",
            timeout=self.patient,
        )

    async def marked(self, timeout: float = 15.0) -> None:
        """Wait until somebody who fell silent after this call is marked."""
        since = self.truth.now()

        def marks() -> bool:
            self.truth.read()
            return any(
                change.reason == "degraded" and (change.heartbeat or 0) >= since
                for change in self.truth.pasts[-1].changes
            )

        await async_wait_until(marks, description="who falls silent is marked", timeout=timeout)

    async def kill(self, number: int) -> Replica:
        """End a replica as a crash would."""
        replica = self.replicas[number]
        self.excuse(mute=[replica])
        await asyncio.to_thread(replica.kill)
        return replica

    async def leader(self, timeout: float = 10.0, *, other_than: int = -1) -> int:
        """Wait until a replica says that it leads; return its number."""

        async def leads() -> list[int]:
            found = [number for number in range(len(self.replicas)) if number != other_than]
            states = [await self.health(number) for number in found]
            return [
                number + 1 for number, state in zip(found, states, strict=True) if state and state["leader"]["leading"]
            ]

        return (await async_wait_until(leads, description="a replica leads", timeout=timeout))[0] - 1

    async def health(self, number: int) -> dict[str, Any]:
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

    async def all_ready(self, timeout: float = 2.0) -> None:
        """Wait until every replica is ready."""

        async def ready() -> bool:
            return all([await self.is_ready(number) for number in range(len(self.replicas))])

        await async_wait_until(ready, description="every replica is ready", timeout=timeout)

    async def metric(self, number: int, name: str) -> float:
        """Return one number a replica exposes."""
        async with httpx2.AsyncClient(timeout=2) as client:
            text = (await client.get(f"{self.replicas[number].url}/metrics/prometheus")).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.split()[0] == name))

    async def settle(self) -> None:
        """Let nobody write any more, and wait until every follower and every replica has come to the end; once."""
        if self.crowd.over.is_set():
            return
        self.crowd.stopped.set()
        last = 0

        async def come() -> bool:
            nonlocal last
            async with httpx2.AsyncClient(timeout=4) as client:
                answers = await asyncio.gather(*(client.get(f"{url}/agents") for url in self.crowd.urls))
            if {answer.status_code for answer in answers} != {200}:
                return False
            last = max(int(answer.json()["resource_version"]) for answer in answers)
            return True

        await async_wait_until(come, description="every replica lists", timeout=self.patient)
        await async_wait_until(
            lambda: all(follower.reached >= last for follower in self.followers),
            description=f"every follower reached {last}",
            timeout=self.patient,
        )
        self.crowd.over.set()

    def verify(self) -> Tally:
        """Hold everything that was written down against the log. Raises the Violation it finds."""
        truth, journal = self.truth, self.crowd.journal
        truth.read()
        pasts = truth.pasts
        check_deeds(journal, pasts, self.terms)
        # A log that was emptied and opened before anybody wrote begins a history that leads on from the one before.
        assert len(set(truth.histories)) >= len(pasts), "a loss of history is told by another history id"
        for past in pasts:
            assert list(past.breaks()) == []
        for follower in self.followers:
            for recording in follower.recordings:
                check(recording, pasts)
            assert follower.ends
            assert follower.recordings[-1].began >= pasts[-1].first
            assert truth.taken or not follower.gone, "410 is for a log that was taken away"
        self._holds()
        return Tally(
            calls=len(journal.deeds),
            acknowledged=sum(deed.status == 200 for deed in journal.deeds),
            lists=len(journal.acknowledged("list")),
            events=sum(len(each.events) for follower in self.followers for each in follower.recordings),
        )

    def _holds(self) -> None:
        """Compare what the store has with what the log leaves, both of one moment: the sweep goes on."""
        raw = self.truth.redis
        while True:
            self.truth.read()
            past = self.truth.pasts[-1]
            left = past.agents()
            heartbeats: Any = raw.zrange("{mesh}:heartbeats", 0, -1, withscores=True)
            deadlines: Any = raw.zrange("{mesh}:deadlines", 0, -1)
            stored = {name.decode() for name in deadlines}
            held: dict[str, Any] = {name: raw.hgetall("{mesh}:agent:" + name) for name in stored}
            wrong = inconsistencies(raw)
            if int(raw.get("{mesh}:version") or 0) == past.last:
                break
        heard = {name.decode(): int(at) for name, at in heartbeats}
        check_silence(past, heard, self.truth.now(), self.terms.late)
        if not self.poisoned:
            assert not wrong
            assert stored == set(left)
            for agent in left.values():
                found = held[agent.id]
                assert (int(found[b"version"]), found[b"spec"]) == (agent.version, agent.spec), "a partial record"


@contextlib.asynccontextmanager
async def a_fleet(
    replicas: int = 3,
    *,
    server: RedisServer | None = None,
    arguments: Sequence[str] = DURABLE,
    proxied: bool = False,
    load: bool = True,
    striver_timeout: float = STRIVER_TIMEOUT,
    within: float = 45.0,
    tallied: Callable[[Tally], None] = lambda _tally: None,
    of: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    enter: Sequence[str] = (),
    **env: str,
) -> AsyncIterator[Fleet]:
    """Provide so many replicas under load; at a clean end all settles and is verified.

    `server` is one that is configured by the caller, `arguments` those of one of our own. `within` bounds the whole in
    seconds. Without `load` there are followers and readers only. `env` adds to the environment of all replicas, `of` to
    that of single ones, and `enter` stands before their command.
    """
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(within):
        if server is None:
            server = stack.enter_context(RedisServer(*arguments, tcp=True))
        store = server
        proxies = [await stack.enter_async_context(Proxy(store.url)) for _ in range(replicas if proxied else 0)]
        processes = [
            Replica(
                proxies[number].url if proxied else store.url,
                within=enter,
                **{"LOG_LEVEL": "info", "REGISTRY_LOG_FORMAT": "json"}
                | {"REGISTRY_INSTANCE_ID": f"replica-{number}", "AGENT_TIMEOUT": "10m"}
                | ELECTION
                | env
                | dict(of.get(number, {})),
            )
            for number in range(replicas)
        ]
        stack.callback(_end, processes)
        await asyncio.gather(*(asyncio.to_thread(each.start) for each in processes))
        truth = stack.enter_context(Truth(store.url))
        crowd = Crowd([each.url for each in processes])
        fleet = Fleet(store, processes, proxies, truth, crowd, followers(crowd))
        async with asyncio.TaskGroup() as group:
            writing = [group.create_task(each.run()) for each in (_writers(crowd, striver_timeout) if load else ())]
            watching = [group.create_task(follower.run()) for follower in fleet.followers]
            watching.append(group.create_task(Reader(crowd).run()))
            if load:
                await fleet.wrote()
            await async_wait_until(lambda: all(each.recordings for each in fleet.followers), description="all follow")
            yield fleet
            await fleet.settle()
            await asyncio.gather(*writing, *watching)
        tallied(await asyncio.to_thread(fleet.verify))


def _writers(crowd: Crowd, timeout: float) -> Sequence[Writer | Striver | Mortal]:
    return [
        *(Writer(crowd, number) for number in range(WRITERS)),
        *(Striver(crowd, f"striver-{number}", timeout=timeout) for number in range(STRIVERS)),
        *(Mortal(crowd, f"mortal-{number}", timeout=MORTAL_TIMEOUT) for number in range(MORTALS)),
    ]


def _end(replicas: Sequence[Replica]) -> None:
    """End what still runs, paused or not."""
    for replica in replicas:
        replica.kill()
