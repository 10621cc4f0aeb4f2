"""What is done to the stack, one step after the other, and what must hold after each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import aiohttp

from deploy.tools.compose_stack import Container, Stack, eventually
from deploy.tools.load_clients import Load, Reads, Watch, a_session, register_at_once
from deploy.tools.report import Report
from registry.cli.fleet import an_agent

_MEGABYTE = 1_000_000
# An image may take 200 MB, and python:3.12-slim takes 125 of them.
_OUR_SHARE = 75
# The balancer cuts a stream that is silent for 40 seconds, and most answers after 15; both must be outlived.
_QUIET = 46
_LONGEST_SILENCE = 20.0
_PROMPT = 0.5
_OK, _UNAVAILABLE = 200, 503
# What a registry without agents of this name answers is small, and cannot change.
_NOBODY = "agent_id=nobody"


class Course:
    """Each step prints rows, and raises AssertionError or StackFailed where a promise was broken."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self._stack = stack
        self._report = report
        self._registered: list[str] = []

    async def run(self) -> None:
        """Go through all steps in their order."""
        await self._up()
        async with a_session(self._stack.url) as session:
            await self._load(session, 100)
            await self._load_and_kill(session, 500)
            quiet = asyncio.create_task(self._quiet(session))
            try:
                await self._prompt_and_scale_up(session)
                await quiet
            finally:
                quiet.cancel()
                await asyncio.wait([quiet])
            await self._scale_down(session)
            await self._without_redis(session)
        await self._down_and_up()

    async def _up(self) -> None:
        with self._report.row("build the image") as row:
            await self._stack.compose("build")
            ours, whole = await self._stack.image_size()
            row.came = f"{ours / _MEGABYTE:.0f} MB on a base of {(whole - ours) / _MEGABYTE:.0f} MB"
            _holds(ours <= _OUR_SHARE * _MEGABYTE, f"{row.came}; at most {_OUR_SHARE} are ours to take")
        with self._report.row("up: Redis, replicas, balancer") as row:
            await self._stack.compose("up", "--detach", "--no-build")
            await self._stack.ready(3)
            await self._reachable()
            row.came = "3 replicas ready, all behind the balancer"

    async def _reachable(self, count: int = 3) -> None:
        """Wait until the balancer leads to so many replicas."""

        async def enough() -> bool:
            async with a_session(self._stack.url) as session:
                return len(await _instances(session)) == count

        await eventually(enough, f"the balancer leads to {count} replicas", 20)

    async def _load(self, session: aiohttp.ClientSession, count: int) -> None:
        with self._report.row(f"{count} registrations at once") as row:
            load = await register_at_once(session, self._agents(count), lambda _: None)
            row.came = self._note(load)
            _holds(not load.troubles, "; ".join(load.troubles[:3]))
        await self._all_there(await self._stack.replicas())

    async def _load_and_kill(self, session: aiohttp.ClientSession, count: int) -> None:
        agents, moment, answered = self._agents(count), asyncio.Event(), 0

        def on_answer(number: int) -> None:
            nonlocal answered
            answered = number
            if number >= count // 5:
                moment.set()

        async with Watch(session, "", await _version(session)) as watch:
            victim = await self._who_serves_a_watch()
            async with self._stack.killer(victim) as kill:
                with self._report.row(f"{count} registrations at once, kill -9 of {_short(victim)} meanwhile") as row:
                    loading = asyncio.create_task(register_at_once(session, agents, on_answer))
                    await moment.wait()
                    await kill()
                    when = answered
                    row.came = f"{self._note(await loading)}; killed at {when}"
                    _holds(when < count, "the kill came after the last answer")
            with self._report.row("the watch that replica served, through another one") as row:
                added = {("ADDED", agent["id"]) for agent in agents}
                await watch.reaches(added)
                _holds(all(len(watch.seen[event]) == 1 for event in added), "an event came twice")
                _holds(watch.resumed > 0, "the watch was not served by the replica that was killed")
                row.came = f"resumed {watch.resumed}x; {count} of {count} events, each once"
        with self._report.row(f"{_short(victim)} comes back") as row:
            replicas = await self._stack.ready(3)
            restarts = await victim.state("{{.RestartCount}}")
            _holds(victim in replicas and restarts == "1", f"it was restarted {restarts} times")
            row.came = "restarted by its policy, ready"
        await self._all_there(replicas)

    async def _who_serves_a_watch(self) -> Container:
        """Return the one replica that serves one."""
        (serving,) = await self._serving_watches()
        return serving

    async def _serving_watches(self) -> list[Container]:
        replicas = await self._stack.replicas()
        return [r for r in replicas if "mcp_registry_watchers 0.0" not in (await r.ask("/metrics/prometheus")).body]

    async def _serves_no_watch(self) -> bool:
        return not await self._serving_watches()

    async def _quiet(self, session: aiohttp.ClientSession) -> None:
        with self._report.row(f"a watch and a wait on which nothing happens for {_QUIET} s") as row:
            version = await _version(session)
            async with Watch(session, f"&{_NOBODY}", version) as watch:
                patient = aiohttp.ClientTimeout(total=_QUIET + 10)
                path = f"/agents?{_NOBODY}&wait={_QUIET}s&resource_version={version}"
                began = time.monotonic()
                async with session.get(path, timeout=patient) as answer:
                    _holds(answer.status == _OK, f"the wait was answered with {answer.status}")
                took = time.monotonic() - began
                _holds(took > _QUIET - 1, f"the wait was answered after {took:.1f} s")
                _holds(watch.resumed == 0, "the watch was cut")
                _holds(watch.longest_silence < _LONGEST_SILENCE, f"silent for {watch.longest_silence:.1f} s")
                row.came = f"neither is cut; a sign of life every {watch.longest_silence:.1f} s"
        with self._report.row("the watcher goes away") as row:
            await eventually(self._serves_no_watch, "no replica serves a watch", 3)
            row.came = "its replica knows"

    async def _prompt_and_scale_up(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("20 registrations, seen through a watch") as row:
            agents = self._agents(20)
            sent: dict[str, float] = {}
            async with Watch(session, "", await _version(session)) as watch:
                for agent in agents:
                    sent[agent["id"]] = time.monotonic()
                    self._note(await register_at_once(session, [agent], lambda _: None))
                    await watch.reaches({("ADDED", agent["id"])})
                took = sorted(watch.seen["ADDED", name][0] - moment for name, moment in sent.items())
            row.came = f"{took[len(took) // 2] * 1000:.0f} ms after they were sent (p50), {took[-1] * 1000:.0f} at most"
            _holds(took[-1] <= _PROMPT, row.came)
        with self._report.row("--scale registry=5") as row:
            await self._scale(5)
            row.came = "5 replicas ready, all behind the balancer"
        await self._all_there(await self._stack.replicas())

    async def _scale(self, count: int) -> None:
        await self._stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", f"registry={count}")
        await self._stack.ready(count)
        await self._reachable(count)

    async def _scale_down(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("--scale registry=3, while reads and heartbeats go on") as row:
            agent = self._registered[0]
            async with (
                _going_on(session, "GET", f"/agents?agent_id={agent}") as reads,
                _going_on(session, "POST", "/heartbeat", {"agent_id": agent}) as beats,
            ):
                await self._scale(3)
            row.came = f"{_failed(reads)} reads, {_failed(beats)} heartbeats failed"
            _holds(not reads.troubles + beats.troubles, "; ".join((reads.troubles + beats.troubles)[:3]))

    async def _without_redis(self, session: aiohttp.ClientSession) -> None:
        async with _going_on(session, "GET", "/agents?resource_version=0&fields=id") as reads:
            with self._report.row("Redis stops: no replica is ready") as row:
                await self._stack.compose("stop", "redis")
                replicas = await self._stack.replicas()
                await eventually(lambda: _unready(replicas), "no replica is ready", 30)
                before = reads.stale
                await eventually(lambda: _more(reads, before + 200), "stale reads go on", 20)
                status, headers = await _try_to_write(session)
                _holds(status == _UNAVAILABLE and "retry-after" in headers, f"a write was answered with {status}")
                row.came = f"resource_version=0: {_failed(reads)} failed; writes: 503"
            with self._report.row("Redis starts: all is well again") as row:
                await self._stack.compose("start", "redis")
                began = time.monotonic()
                await eventually(lambda: _writes(session), "writes succeed", 30)
                row.came = f"first write after {time.monotonic() - began:.1f} s"
                await self._stack.ready(3)
        _holds(not reads.troubles, "; ".join(reads.troubles[:3]))
        with self._report.row("reads with resource_version=0 all the while") as row:
            row.came = f"{_failed(reads)} failed, {reads.stale} were stale, {reads.longest * 1000:.0f} ms at most"
        await self._all_there(await self._stack.replicas())

    async def _down_and_up(self) -> None:
        with self._report.row("down, and up on the same volume") as row:
            await self._stack.compose("down", "--timeout", "10")
            await self._stack.compose("up", "--detach", "--no-build")
            replicas = await self._stack.ready(3)
            row.came = "3 replicas ready"
        await self._all_there(replicas)

    async def _all_there(self, replicas: Sequence[Container]) -> None:
        with self._report.row("every replica, asked by itself, lists every agent") as row:
            for replica in replicas:
                listed = (await replica.ask("/agents?fields=id&namespace=demo")).ids
                missing = {*self._registered} - {*listed}
                _holds(sorted(listed) == sorted(self._registered), f"{replica.name} misses {len(missing)}")
            row.came = f"{len(replicas)} x {len(self._registered)}"

    def _agents(self, count: int) -> list[dict[str, Any]]:
        first = len(self._registered)
        return [an_agent(number) for number in range(first, first + count)]

    def _note(self, load: Load) -> str:
        """Remember who is registered now, and say how it went. Raises AssertionError if somebody is not."""
        _holds(len(load.ids) == load.asked, f"{load.asked - len(load.ids)} did not get in: {load.troubles[-3:]}")
        self._registered += load.ids
        again = f", {len(load.troubles)} tried again" if load.troubles else ""
        return f"{len(load.ids)} in {load.seconds:.2f} s (p99 {load.percentile(0.99):.2f}){again}"


def _holds(promise: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion that -O leaves in
    if not promise:
        raise AssertionError(otherwise)


def _short(container: Container) -> str:
    """Return `registry-2` for `mcp-mesh-test-4711-registry-2`."""
    return "-".join(container.name.split("-")[-2:])


def _failed(calls: Reads) -> str:
    return f"{len(calls.troubles)} of {calls.count}"


@contextlib.asynccontextmanager
async def _going_on(
    session: aiohttp.ClientSession, method: str, path: str, document: object = None
) -> AsyncIterator[Reads]:
    """Call again and again in the background, as eight callers would."""
    calls = Reads()
    task = asyncio.gather(*(calls.go_on(session, method, path, document) for _ in range(8)))
    try:
        yield calls
    finally:
        calls.enough = True
        await task


async def _version(session: aiohttp.ClientSession) -> str:
    async with session.get(f"/agents?{_NOBODY}") as answer:
        return str((await answer.json())["resource_version"])


async def _instances(session: aiohttp.ClientSession, asked: int = 24) -> set[str]:
    """Return the names of the replicas that answer through the balancer; none while it does not."""
    found = set()
    with contextlib.suppress(aiohttp.ClientError):
        for _ in range(asked):
            async with session.get("/health") as answer:
                if answer.status != _OK:
                    return set()
                found.add((await answer.json())["instance"])
    return found


async def _unready(replicas: Collection[Container]) -> bool:
    return {(await replica.ask("/ready")).status for replica in replicas} == {_UNAVAILABLE}


async def _more(reads: Reads, count: int) -> bool:
    return reads.stale >= count


async def _try_to_write(session: aiohttp.ClientSession) -> tuple[int, set[str]]:
    async with session.post("/agents", json=an_agent(0)) as answer:
        return answer.status, {name.lower() for name in answer.headers}


async def _writes(session: aiohttp.ClientSession) -> bool:
    return (await _try_to_write(session))[0] == _OK
