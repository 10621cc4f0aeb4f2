"""Load balancers before the replicas: a replica behind one dies, one buffers, one closes idle streams."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.call_journal import ClientCall
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.load_balancers import HAPROXY_PATH, NGINX_PATH, haproxy, nginx, round_robin_balancer
from tests.support.load_clients import RandomWriter
from tests.support.polling import async_wait_until
from tests.support.raw_http import open_raw_connection
from tests.support.watch_client import open_watch

WRITERS = 50
BalancerAt = Callable[[Sequence[str], Path], AbstractAsyncContextManager[str]]


@pytest.mark.fault(1, "A replica behind a load balancer is killed")
@pytest.mark.parametrize(
    "balancer", [round_robin_balancer, pytest.param(haproxy, marks=pytest.mark.slow)], ids=["ours", "haproxy"]
)
async def test_a_killed_replica_fails_only_calls_in_flight(
    run_fleet: FleetMaker, balancer: BalancerAt, tmp_path: Path
) -> None:
    """With 50 more writers, calls fail only until the next health check; watchers resume and miss no event."""
    if balancer is haproxy and HAPROXY_PATH is None:
        pytest.skip("haproxy is not installed; apt-get install haproxy")
    # The writers occupy two cores, so heartbeats of the persistent agents may be late.
    async with run_fleet(persistent_agent_timeout_s=20) as fleet, balancer(fleet.urls, tmp_path) as url:
        fleet.load.urls[:] = [url]
        fleet.tolerate_unanswered(url)
        async with asyncio.TaskGroup() as more:
            for number in range(WRITERS):
                more.create_task(RandomWriter(fleet.load, 100 + number).run())
            await fleet.wait_for_writes(100)

            await fleet.kill_replica(1)
            killed_at = time.monotonic()
            await async_wait_until(
                lambda: last_calls_succeed(fleet.calls_since(killed_at)), description="calls succeed again"
            )
            recovered_at = time.monotonic()
            await fleet.wait_for_resumes()
            await fleet.wait_for_writes(300)

            assert not any(has_failed(call) for call in fleet.calls_since(recovered_at))
            await fleet.wait_until_settled()


def last_calls_succeed(calls: Sequence[ClientCall]) -> bool:
    """Return whether the last calls, two for each writer, did not fail."""
    return len(calls) >= 2 * WRITERS and not any(has_failed(call) for call in calls[-2 * WRITERS :])


def has_failed(call: ClientCall) -> bool:
    """Return whether a call had an error, or no response although its client waited."""
    return call.status not in (200, 404) and not call.timed_out


@pytest.mark.fault(43, "A load balancer buffers, or closes idle connections")
@pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed; apt-get install nginx")
async def test_a_buffering_balancer_delays_no_event(run_fleet: FleetMaker, tmp_path: Path) -> None:
    """Watch streams disable buffering: each event arrives although none follows it."""
    async with (
        run_fleet() as fleet,
        nginx(fleet.urls, tmp_path, "proxy_buffering on; proxy_buffers 8 64k;") as url,
        open_watch(url, agent_id="urgent") as stream,
    ):
        for number in range(5):
            async with open_raw_connection(fleet.urls[number % 3]) as connection:
                await connection.request("POST", "/agents", a_registration("urgent", labels={"n": str(number)}))
            await stream.next_events(1)


@pytest.mark.fault(43, "A load balancer buffers, or closes idle connections")
@pytest.mark.skipif(HAPROXY_PATH is None, reason="haproxy is not installed; apt-get install haproxy")
@pytest.mark.slow
async def test_a_balancer_that_closes_idle_streams_loses_no_event(run_fleet: FleetMaker, tmp_path: Path) -> None:
    """It closes each stream after half a second without data; watchers resume at their last version."""
    async with run_fleet() as fleet, haproxy(fleet.urls, tmp_path, server_timeout="500ms") as url:
        limit_watches(fleet, "4s")
        fleet.load.urls[:] = [url]
        fleet.tolerate_unanswered(url)

        for _ in range(3):
            await fleet.wait_for_resumes()
        await fleet.wait_for_writes()
        # A watcher without events learns the current version from the bookmark at the end of its stream, so the stream
        # must end before the balancer closes it.
        limit_watches(fleet, "300ms")
        await fleet.wait_until_settled()


def limit_watches(fleet: FleetUnderLoad, duration: str) -> None:
    """Limit the duration of the next watch of each follower."""
    for follower in fleet.followers:
        follower.watch_timeout = duration
