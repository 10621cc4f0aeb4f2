"""The steps of `make compose-test`, and the checks after each step."""

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
# The limit of an image is 200 MB; python:3.12-slim takes 125 of them.
_MAX_OWN_LAYERS_MB = 75
# The load balancer closes a stream without data after 40 s, and most responses after 15 s; the test waits longer.
_IDLE_S = 46
_MAX_STREAM_GAP_S = 20.0
_MAX_WATCH_LATENCY_S = 0.5
_HTTP_OK, _HTTP_UNAVAILABLE = 200, 503
# A query without matches: its response is small and does not change.
_NO_MATCH_QUERY = "agent_id=unknown"


class ComposeScenario:
    """Runs the steps; each prints rows, and raises AssertionError or StackFailed if a check fails."""

    def __init__(self, stack: Stack, report: Report) -> None:
        self._stack = stack
        self._report = report
        self._registered_ids: list[str] = []

    async def run(self) -> None:
        """Run all steps in order."""
        await self._bring_up()
        async with open_session(self._stack.url) as session:
            await self._register_agents(session, 100)
            await self._register_and_kill_replica(session, 500)
            idle_streams = asyncio.create_task(self._keep_streams_idle(session))
            try:
                await self._measure_watch_latency_and_scale_up(session)
                await idle_streams
            finally:
                idle_streams.cancel()
                await asyncio.wait([idle_streams])
            await self._scale_down(session)
            await self._stop_and_start_redis(session)
        await self._restart_on_same_volume()

    async def _bring_up(self) -> None:
        with self._report.row("build the image") as row:
            await self._stack.compose("build")
            own, total = await self._stack.image_size()
            row.result = f"{own / _BYTES_PER_MB:.0f} MB on a base of {(total - own) / _BYTES_PER_MB:.0f} MB"
            _require(
                own <= _MAX_OWN_LAYERS_MB * _BYTES_PER_MB,
                f"{row.result}; own layers may take at most {_MAX_OWN_LAYERS_MB} MB",
            )
        with self._report.row("up: Redis, replicas, load balancer") as row:
            await self._stack.compose("up", "--detach", "--no-build")
            await self._stack.wait_until_ready(3)
            await self._wait_for_balancer()
            row.result = "3 replicas ready, all behind the load balancer"

    async def _wait_for_balancer(self, count: int = 3) -> None:
        """Wait until the load balancer reaches this many replicas."""

        async def all_reached() -> bool:
            async with open_session(self._stack.url) as session:
                return len(await _replicas_behind_balancer(session)) == count

        await wait_until(all_reached, f"the load balancer reaches {count} replicas", 20)

    async def _register_agents(self, session: aiohttp.ClientSession, count: int) -> None:
        with self._report.row(f"{count} registrations at once") as row:
            load = await register_concurrently(session, self._new_agents(count), lambda _: None)
            row.result = self._record_load(load)
            _require(not load.errors, "; ".join(load.errors[:3]))
        await self._check_every_replica_lists_all(await self._stack.replicas())

    async def _register_and_kill_replica(self, session: aiohttp.ClientSession, count: int) -> None:
        agents, kill_time, response_count = self._new_agents(count), asyncio.Event(), 0

        def on_response(number: int) -> None:
            nonlocal response_count
            response_count = number
            if number >= count // 5:
                kill_time.set()

        async with ResumingWatch(session, "", await _resource_version(session)) as watch:
            victim = await self._replica_with_watch()
            async with self._stack.prepared_kill(victim) as kill:
                with self._report.row(f"{count} registrations at once while {_short_name(victim)} is killed") as row:
                    loading = asyncio.create_task(register_concurrently(session, agents, on_response))
                    await kill_time.wait()
                    await kill()
                    count_at_kill = response_count
                    row.result = f"{self._record_load(await loading)}; killed at {count_at_kill}"
                    _require(count_at_kill < count, "the kill came after the last response")
            with self._report.row("the watch resumes on another replica") as row:
                added = {("ADDED", agent["id"]) for agent in agents}
                await watch.wait_for_events(added)
                _require(all(len(watch.event_times[event]) == 1 for event in added), "an event arrived twice")
                _require(watch.resume_count > 0, "the watch was not served by the killed replica")
                row.result = f"resumed {watch.resume_count}x; {count} of {count} events, each once"
        with self._report.row(f"{_short_name(victim)} restarts") as row:
            replicas = await self._stack.wait_until_ready(3)
            restarts = await victim.inspect("{{.RestartCount}}")
            _require(victim in replicas and restarts == "1", f"it was restarted {restarts} times")
            row.result = "restarted by its policy, ready"
        await self._check_every_replica_lists_all(replicas)

    async def _replica_with_watch(self) -> Container:
        """Return the only replica that serves a watch."""
        (replica,) = await self._replicas_with_watches()
        return replica

    async def _replicas_with_watches(self) -> list[Container]:
        replicas = await self._stack.replicas()
        return [r for r in replicas if "mcp_registry_watchers 0.0" not in (await r.get("/metrics/prometheus")).body]

    async def _no_replica_has_watches(self) -> bool:
        return not await self._replicas_with_watches()

    async def _keep_streams_idle(self, session: aiohttp.ClientSession) -> None:
        with self._report.row(f"an idle watch and long poll for {_IDLE_S} s") as row:
            version = await _resource_version(session)
            async with ResumingWatch(session, f"&{_NO_MATCH_QUERY}", version) as watch:
                timeout = aiohttp.ClientTimeout(total=_IDLE_S + 10)
                path = f"/agents?{_NO_MATCH_QUERY}&wait={_IDLE_S}s&resource_version={version}"
                began = time.monotonic()
                async with session.get(path, timeout=timeout) as response:
                    _require(response.status == _HTTP_OK, f"the long poll returned {response.status}")
                took = time.monotonic() - began
                _require(took > _IDLE_S - 1, f"the long poll returned after {took:.1f} s")
                _require(watch.resume_count == 0, "the watch was closed")
                _require(watch.longest_gap_s < _MAX_STREAM_GAP_S, f"no data for {watch.longest_gap_s:.1f} s")
                row.result = f"neither is closed; a keep-alive every {watch.longest_gap_s:.1f} s"
        with self._report.row("the watcher disconnects") as row:
            await wait_until(self._no_replica_has_watches, "no replica serves a watch", 3)
            row.result = "its replica has no watcher"

    async def _measure_watch_latency_and_scale_up(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("watch latency of 20 registrations") as row:
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
            row.result = "5 replicas ready, all behind the load balancer"
        await self._check_every_replica_lists_all(await self._stack.replicas())

    async def _scale(self, count: int) -> None:
        await self._stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", f"registry={count}")
        await self._stack.wait_until_ready(count)
        await self._wait_for_balancer(count)

    async def _scale_down(self, session: aiohttp.ClientSession) -> None:
        with self._report.row("--scale registry=3 during reads and heartbeats") as row:
            agent = self._registered_ids[0]
            async with (
                _background_calls(session, "GET", f"/agents?agent_id={agent}") as reads,
                _background_calls(session, "POST", "/heartbeat", {"agent_id": agent}) as heartbeats,
            ):
                await self._scale(3)
            row.result = f"{_format_failures(reads)} reads, {_format_failures(heartbeats)} heartbeats failed"
            _require(not reads.errors + heartbeats.errors, "; ".join((reads.errors + heartbeats.errors)[:3]))

    async def _stop_and_start_redis(self, session: aiohttp.ClientSession) -> None:
        async with _background_calls(session, "GET", "/agents?resource_version=0&fields=id") as reads:
            with self._report.row("Redis stops: no replica is ready") as row:
                await self._stack.compose("stop", "redis")
                replicas = await self._stack.replicas()
                await wait_until(lambda: _none_ready(replicas), "no replica is ready", 30)
                before = reads.stale_count
                await wait_until(lambda: _stale_reads_reached(reads, before + 200), "stale reads continue", 20)
                status, headers = await _try_register(session)
                _require(status == _HTTP_UNAVAILABLE and "retry-after" in headers, f"a write returned {status}")
                row.result = f"resource_version=0: {_format_failures(reads)} failed; writes: 503"
            with self._report.row("Redis starts: writes succeed again") as row:
                await self._stack.compose("start", "redis")
                began = time.monotonic()
                await wait_until(lambda: _write_succeeds(session), "writes succeed", 30)
                row.result = f"first write after {time.monotonic() - began:.1f} s"
                await self._stack.wait_until_ready(3)
        _require(not reads.errors, "; ".join(reads.errors[:3]))
        with self._report.row("stale reads during the outage") as row:
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
        with self._report.row("every replica lists every agent") as row:
            for replica in replicas:
                listed = (await replica.get("/agents?fields=id&namespace=demo")).agent_ids
                missing = {*self._registered_ids} - {*listed}
                _require(sorted(listed) == sorted(self._registered_ids), f"{replica.name} misses {len(missing)}")
            row.result = f"{len(replicas)} x {len(self._registered_ids)}"

    def _new_agents(self, count: int) -> list[dict[str, Any]]:
        first = len(self._registered_ids)
        return [demo_agent(number) for number in range(first, first + count)]

    def _record_load(self, load: LoadResult) -> str:
        """Record the registered agents and return a summary. Raises AssertionError if one is not registered."""
        _require(
            len(load.registered_ids) == load.requested,
            f"{load.requested - len(load.registered_ids)} were not registered: {load.errors[-3:]}",
        )
        self._registered_ids += load.registered_ids
        retries = f", {len(load.errors)} retries" if load.errors else ""
        return (
            f"{len(load.registered_ids)} in {load.duration_s:.2f} s (p99 {load.latency_percentile(0.99):.2f}){retries}"
        )


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - an assertion that also runs with -O
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
    """Call repeatedly in the background with eight concurrent callers."""
    calls = BackgroundCalls()
    task = asyncio.gather(*(calls.call_until_stopped(session, method, path, document) for _ in range(8)))
    try:
        yield calls
    finally:
        calls.stop_requested = True
        await task


async def _resource_version(session: aiohttp.ClientSession) -> str:
    async with session.get(f"/agents?{_NO_MATCH_QUERY}") as response:
        return str((await response.json())["resource_version"])


async def _replicas_behind_balancer(session: aiohttp.ClientSession, request_count: int = 24) -> set[str]:
    """Return the names of the replicas behind the load balancer; none while it responds with an error."""
    found = set()
    with contextlib.suppress(aiohttp.ClientError):
        for _ in range(request_count):
            async with session.get("/health") as response:
                if response.status != _HTTP_OK:
                    return set()
                found.add((await response.json())["instance"])
    return found


async def _none_ready(replicas: Collection[Container]) -> bool:
    return {(await replica.get("/ready")).status for replica in replicas} == {_HTTP_UNAVAILABLE}


async def _stale_reads_reached(reads: BackgroundCalls, count: int) -> bool:
    return reads.stale_count >= count


async def _try_register(session: aiohttp.ClientSession) -> tuple[int, set[str]]:
    async with session.post("/agents", json=demo_agent(0)) as response:
        return response.status, {name.lower() for name in response.headers}


async def _write_succeeds(session: aiohttp.ClientSession) -> bool:
    return (await _try_register(session))[0] == _HTTP_OK
