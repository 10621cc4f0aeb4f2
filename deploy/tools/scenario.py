"""What is done to the stack, one step after the other, and what must hold after each."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import aiohttp

from deploy.tools.compose_stack import Container, Stack, wait_until
from deploy.tools.load_clients import BackgroundCalls, LoadResult, ResumingWatch, open_session, register_concurrently
from deploy.tools.report import Report
from examples.demo.agents import demo_agent

_BYTES_PER_MB = 1_000_000
# An image may take 200 MB, and python:3.12-slim takes 125 of them.
_MAX_OWN_LAYERS_MB = 75
# The balancer cuts a stream that is silent for 40 seconds, and most answers after 15; both must be outlived.
_IDLE_S = 46
_MAX_STREAM_GAP_S = 20.0
_MAX_WATCH_LATENCY_S = 0.5
_HTTP_OK, _HTTP_UNAVAILABLE = 200, 503
# What a registry without agents of this name answers is small, and cannot change.
_NO_MATCH_QUERY = "agent_id=nobody"


class ComposeScenario:
    """Each step prints rows, and raises AssertionError or StackFailed where a promise was broken."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self._stack = stack
        self._report = report
        self._registered_ids: list[str] = []

    async def run(self) -> None:
        """Go through all steps in their order."""
        await self._bring_up()
        async with open_session(self._stack.url) as session:
            await self._register_agents(session, 100)
            await self._register_and_kill_replica(session, 500)
            quiet = asyncio.create_task(self._keep_streams_idle(session))
            try:
                await self._measure_watch_latency_and_scale_up(session)
                await quiet
            finally:
                quiet.cancel()
                await asyncio.wait([quiet])
            await self._scale_down(session)
            await self._stop_and_start_redis(session)
        await self._restart_on_same_volume()

    async def _bring_up(self) -> None:
        with self._report.row("build the image") as row:
            await self._stack.compose("build")
            ours, whole = await self._stack.image_size()
            row.result = f"{ours / _BYTES_PER_MB:.0f} MB on a base of {(whole - ours) / _BYTES_PER_MB:.0f} MB"
            _require(
                ours <= _MAX_OWN_LAYERS_MB * _BYTES_PER_MB,
                f"{row.result}; at most {_MAX_OWN_LAYERS_MB} are ours to take",
            )
        with self._report.row("up: Redis, replicas, balancer") as row:
            await self._stack.compose("up", "--detach", "--no-build")
            await self._stack.wait_until_ready(3)
            await self._wait_for_balancer()
            row.result = "3 replicas ready, all behind the balancer"

    async def _wait_for_balancer(self, count: int = 3) -> None:
        """Wait until the balancer leads to so many replicas."""

        async def enough() -> bool:
            async with open_session(self._stack.url) as session:
                return len(await _replicas_behind_balancer(session)) == count

        await wait_until(enough, f"the balancer leads to {count} replicas", 20)

    async def _register_agents(self, session: aiohttp.ClientSession, count: int) -> None:
        with self._report.row(f"{count} registrations at once") as row:
            load = await register_concurrently(session, self._new_agents(count), lambda _: None)
            row.result = self._record_load(load)
            _require(not load.errors, "; ".join(load.errors[:3]))
        await self._check_every_replica_lists_all(await self._stack.replicas())

    async def _register_and_kill_replica(self, session: aiohttp.ClientSession, count: int) -> None:
        agents, moment, answered = self._new_agents(count), asyncio.Event(), 0

        def on_answer(number: int) -> None:
            nonlocal answered
            answered = number
            if number >= count // 5:
                moment.set()

        async with ResumingWatch(session, "", await _resource_version(session)) as watch:
            victim = await self._replica_with_watch()
            async with self._stack.prepared_kill(victim) as kill:
                with self._report.row(
                    f"{count} registrations at once, kill -9 of {_short_name(victim)} meanwhile"
                ) as row:
                    loading = asyncio.create_task(register_concurrently(session, agents, on_answer))
                    await moment.wait()
                    await kill()
                    when = answered
                    row.result = f"{self._record_load(await loading)}; killed at {when}"
                    _require(when < count, "the kill came after the last answer")
            with self._report.row("the watch that replica served, through another one") as row:
                added = {("ADDED", agent["id"]) for agent in agents}
                await watch.wait_for_events(added)
                _require(all(len(watch.event_times[event]) == 1 for event in added), "an event came twice")
                _require(watch.resume_count > 0, "the watch was not served by the replica that was killed")
                row.result = f"resumed {watch.resume_count}x; {count} of {count} events, each once"
        with self._report.row(f"{_short_name(victim)} comes back") as row:
            replicas = await self._stack.wait_until_ready(3)
            restarts = await victim.inspect("{{.RestartCount}}")
            _require(victim in replicas and restarts == "1", f"it was restarted {restarts} times")
            row.result = "restarted by its policy, ready"
        await self._check_every_replica_lists_all(replicas)

    async def _replica_with_watch(self) -> Container:
        """Return the one replica that serves one."""
        (serving,) = await self._replicas_with_watches()
        return serving

    async def _replicas_with_watches(self) -> list[Container]:
        replicas = await self._stack.replicas()
        return [r for r in replicas if "mcp_registry_watchers 0.0" not in (await r.get("/metrics/prometheus")).body]

    async def _no_replica_has_watches(self) -> bool:
        return not await self._replicas_with_watches()

    async def _keep_streams_idle(self, session: aiohttp.ClientSession) -> None:
        with self._report.row(f"a watch and a wait on which nothing happens for {_IDLE_S} s") as row:
            version = await _resource_version(session)
            async with ResumingWatch(session, f"&{_NO_MATCH_QUERY}", version) as watch:
                patient = aiohttp.ClientTimeout(total=_IDLE_S + 10)
                path = f"/agents?{_NO_MATCH_QUERY}&wait={_IDLE_S}s&resource_version={version}"
                began = time.monotonic()
                async with session.get(path, timeout=patient) as answer:
                    _require(answer.status == _HTTP_OK, f"the wait was answered with {answer.status}")
                took = time.monotonic() - began
                _require(took > _IDLE_S - 1, f"the wait was answered after {took:.1f} s")
                _require(watch.resume_count == 0, "the watch was cut")
                _require(watch.longest_gap_s < _MAX_STREAM_GAP_S, f"silent for {watch.longest_gap_s:.1f} s")
                row.result = f"neither is cut; a sign of life every {watch.longest_gap_s:.1f} s"
        with self._report.row("the watcher goes away") as row:
            await wait_until(self._no_replica_has_watches, "no replica serves a watch", 3)
            row.result = "its replica knows"

    async def _measure_watch_latency_and_scale_up(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("20 registrations, seen through a watch") as row:
            agents = self._new_agents(20)
            sent: dict[str, float] = {}
            async with ResumingWatch(session, "", await _resource_version(session)) as watch:
                for agent in agents:
                    sent[agent["id"]] = time.monotonic()
                    self._record_load(await register_concurrently(session, [agent], lambda _: None))
                    await watch.wait_for_events({("ADDED", agent["id"])})
                took = sorted(watch.event_times["ADDED", name][0] - moment for name, moment in sent.items())
            row.result = (
                f"{took[len(took) // 2] * 1000:.0f} ms after they were sent (p50), {took[-1] * 1000:.0f} at most"
            )
            _require(took[-1] <= _MAX_WATCH_LATENCY_S, row.result)
        with self._report.row("--scale registry=5") as row:
            await self._scale(5)
            row.result = "5 replicas ready, all behind the balancer"
        await self._check_every_replica_lists_all(await self._stack.replicas())

    async def _scale(self, count: int) -> None:
        await self._stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", f"registry={count}")
        await self._stack.wait_until_ready(count)
        await self._wait_for_balancer(count)

    async def _scale_down(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("--scale registry=3, while reads and heartbeats go on") as row:
            agent = self._registered_ids[0]
            async with (
                _background_calls(session, "GET", f"/agents?agent_id={agent}") as reads,
                _background_calls(session, "POST", "/heartbeat", {"agent_id": agent}) as beats,
            ):
                await self._scale(3)
            row.result = f"{_format_failures(reads)} reads, {_format_failures(beats)} heartbeats failed"
            _require(not reads.errors + beats.errors, "; ".join((reads.errors + beats.errors)[:3]))

    async def _stop_and_start_redis(self, session: aiohttp.ClientSession) -> None:
        async with _background_calls(session, "GET", "/agents?resource_version=0&fields=id") as reads:
            with self._report.row("Redis stops: no replica is ready") as row:
                await self._stack.compose("stop", "redis")
                replicas = await self._stack.replicas()
                await wait_until(lambda: _none_ready(replicas), "no replica is ready", 30)
                before = reads.stale_count
                await wait_until(lambda: _stale_reads_reached(reads, before + 200), "stale reads go on", 20)
                status, headers = await _try_register(session)
                _require(
                    status == _HTTP_UNAVAILABLE and "retry-after" in headers, f"a write was answered with {status}"
                )
                row.result = f"resource_version=0: {_format_failures(reads)} failed; writes: 503"
            with self._report.row("Redis starts: all is well again") as row:
                await self._stack.compose("start", "redis")
                began = time.monotonic()
                await wait_until(lambda: _write_succeeds(session), "writes succeed", 30)
                row.result = f"first write after {time.monotonic() - began:.1f} s"
                await self._stack.wait_until_ready(3)
        _require(not reads.errors, "; ".join(reads.errors[:3]))
        with self._report.row("reads with resource_version=0 all the while") as row:
            row.result = (
                f"{_format_failures(reads)} failed, {reads.stale_count} were stale, "
                f"{reads.longest_s * 1000:.0f} ms at most"
            )
        await self._check_every_replica_lists_all(await self._stack.replicas())

    async def _restart_on_same_volume(self) -> None:
        with self._report.row("down, and up on the same volume") as row:
            await self._stack.compose("down", "--timeout", "10")
            await self._stack.compose("up", "--detach", "--no-build")
            replicas = await self._stack.wait_until_ready(3)
            row.result = "3 replicas ready"
        await self._check_every_replica_lists_all(replicas)

    async def _check_every_replica_lists_all(self, replicas: Sequence[Container]) -> None:
        with self._report.row("every replica, asked by itself, lists every agent") as row:
            for replica in replicas:
                listed = (await replica.get("/agents?fields=id&namespace=demo")).agent_ids
                missing = {*self._registered_ids} - {*listed}
                _require(sorted(listed) == sorted(self._registered_ids), f"{replica.name} misses {len(missing)}")
            row.result = f"{len(replicas)} x {len(self._registered_ids)}"

    def _new_agents(self, count: int) -> list[dict[str, Any]]:
        first = len(self._registered_ids)
        return [demo_agent(number) for number in range(first, first + count)]

    def _record_load(self, load: LoadResult) -> str:
        """Remember who is registered now, and say how it went. Raises AssertionError if somebody is not."""
        _require(
            len(load.registered_ids) == load.requested,
            f"{load.requested - len(load.registered_ids)} did not get in: {load.errors[-3:]}",
        )
        self._registered_ids += load.registered_ids
        again = f", {len(load.errors)} tried again" if load.errors else ""
        return f"{len(load.registered_ids)} in {load.duration_s:.2f} s (p99 {load.latency_percentile(0.99):.2f}){again}"


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - an assertion that -O leaves in
    if not condition:
        raise AssertionError(message)


def _short_name(container: Container) -> str:
    """Return `registry-2` for `mcp-mesh-test-4711-registry-2`."""
    return "-".join(container.name.split("-")[-2:])


def _format_failures(calls: BackgroundCalls) -> str:
    return f"{len(calls.errors)} of {calls.count}"


@contextlib.asynccontextmanager
async def _background_calls(
    session: aiohttp.ClientSession, method: str, path: str, document: object = None
) -> AsyncIterator[BackgroundCalls]:
    """Call again and again in the background, as eight callers would."""
    calls = BackgroundCalls()
    task = asyncio.gather(*(calls.call_until_stopped(session, method, path, document) for _ in range(8)))
    try:
        yield calls
    finally:
        calls.stop_requested = True
        await task


async def _resource_version(session: aiohttp.ClientSession) -> str:
    async with session.get(f"/agents?{_NO_MATCH_QUERY}") as answer:
        return str((await answer.json())["resource_version"])


async def _replicas_behind_balancer(session: aiohttp.ClientSession, request_count: int = 24) -> set[str]:
    """Return the names of the replicas that answer through the balancer; none while it does not."""
    found = set()
    with contextlib.suppress(aiohttp.ClientError):
        for _ in range(request_count):
            async with session.get("/health") as answer:
                if answer.status != _HTTP_OK:
                    return set()
                found.add((await answer.json())["instance"])
    return found


async def _none_ready(replicas: Collection[Container]) -> bool:
    return {(await replica.get("/ready")).status for replica in replicas} == {_HTTP_UNAVAILABLE}


async def _stale_reads_reached(reads: BackgroundCalls, count: int) -> bool:
    return reads.stale_count >= count


async def _try_register(session: aiohttp.ClientSession) -> tuple[int, set[str]]:
    async with session.post("/agents", json=demo_agent(0)) as answer:
        return answer.status, {name.lower() for name in answer.headers}


async def _write_succeeds(session: aiohttp.ClientSession) -> bool:
    return (await _try_register(session))[0] == _HTTP_OK
