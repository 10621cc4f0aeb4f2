"""What stands before the replicas: one of them dies behind it, it buffers, it cuts what is silent."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.fleet.conftest import FleetMaker
from tests.support.child_process import ChildProcess
from tests.support.fleet_under_load import FleetUnderLoad
from tests.support.http_calls import a_registration
from tests.support.load_balancers import HAPROXY_PATH, haproxy, round_robin_balancer
from tests.support.load_clients import RandomWriter
from tests.support.polling import async_wait_until
from tests.support.ports import free_port
from tests.support.raw_http import open_raw_connection
from tests.support.watch_client import open_watch

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
WRITERS = 50
BalancerAt = Callable[[Sequence[str], Path], AbstractAsyncContextManager[str]]

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream replicas {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_buffering on;
            proxy_buffers 8 64k;
            proxy_http_version 1.1;
        }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def buffering(urls: Sequence[str], folder: Path) -> AsyncIterator[str]:
    """Provide the URL of an nginx that buffers what it passes on."""
    assert NGINX is not None
    port = free_port()
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in urls)
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, servers=servers))
    with ChildProcess(NGINX, "-c", configuration, "-e", folder / "error.log"):
        await async_wait_until(lambda: listens(port), description="nginx listens")
        yield f"http://127.0.0.1:{port}"


async def listens(port: int) -> bool:
    """Tell whether somebody answers there."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with open_raw_connection(f"http://127.0.0.1:{port}") as line:
            return (await line.request("GET", "/health")).status == 200
    return False


@pytest.mark.fault(1, "A replica behind a load balancer is killed")
@pytest.mark.parametrize(
    "balancer", [round_robin_balancer, pytest.param(haproxy, marks=pytest.mark.slow)], ids=["ours", "haproxy"]
)
async def test_a_killed_replica_costs_what_was_on_its_way(
    a_fleet: FleetMaker, balancer: BalancerAt, tmp_path: Path
) -> None:
    """With 50 writers more, no call fails that begins a second after; watchers go on elsewhere and miss nothing."""
    if balancer is haproxy and HAPROXY_PATH is None:
        pytest.skip("haproxy is not installed; apt-get install haproxy")
    # So many writers keep two cores busy: who strives may wait for its turn as long as others are silent.
    async with a_fleet(persistent_agent_timeout_s=20, timeout=55) as fleet, balancer(fleet.urls, tmp_path) as url:
        fleet.load.urls[:] = [url]
        fleet.tolerate_unanswered(url)
        async with asyncio.TaskGroup() as more:
            for number in range(WRITERS):
                more.create_task(RandomWriter(fleet.load, 100 + number).run())
            await fleet.wait_for_writes(100)

            await fleet.kill_replica(1)
            killed = time.monotonic()
            await fleet.load.pause(1)
            healed = time.monotonic()
            await fleet.wait_for_resumes()
            await fleet.wait_for_writes(300)

            assert {deed.status for deed in fleet.calls_since(healed)} <= {200, 404}
            failed = [deed for deed in fleet.calls_since(killed) if deed.status not in (200, 404)]
            assert len(failed) < WRITERS + 20
            await fleet.wait_until_settled()


@pytest.mark.fault(43, "A load balancer buffers, or closes idle connections")
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed; apt-get install nginx")
async def test_a_balancer_that_buffers_holds_no_event_back(a_fleet: FleetMaker, tmp_path: Path) -> None:
    """Streams ask it not to: an event comes through at once."""
    async with a_fleet() as fleet, buffering(fleet.urls, tmp_path) as url, open_watch(url, agent_id="urgent") as stream:
        for number in range(5):
            sent = time.monotonic()
            async with open_raw_connection(fleet.urls[number % 3]) as line:
                await line.request("POST", "/agents", a_registration("urgent", labels={"n": str(number)}))
            await stream.next_events(1)
            assert time.monotonic() - sent < 3


@pytest.mark.fault(43, "A load balancer buffers, or closes idle connections")
@pytest.mark.skipif(HAPROXY_PATH is None, reason="haproxy is not installed; apt-get install haproxy")
@pytest.mark.slow
async def test_a_balancer_that_cuts_loses_nothing(a_fleet: FleetMaker, tmp_path: Path) -> None:
    """One that cuts each stream that is silent for half a second: watchers go on where they were."""
    async with a_fleet() as fleet, haproxy(fleet.urls, tmp_path, server_timeout="500ms") as url:
        last_for(fleet, "4s")
        fleet.load.urls[:] = [url]
        fleet.tolerate_unanswered(url)

        for _ in range(3):
            await fleet.wait_for_resumes()
        await fleet.wait_for_writes()
        # Who sees no event learns from bookmarks alone how far it has come.
        last_for(fleet, "300ms")
        await fleet.wait_until_settled()


def last_for(fleet: FleetUnderLoad, seconds: str) -> None:
    """Let everybody's next watch end by itself after so long."""
    for follower in fleet.followers:
        follower.watch_timeout = seconds
