"""Load balancers for replicas: a small one in this process, haproxy and nginx."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.child_process import ChildProcess
from tests.support.machine_speed import scaled
from tests.support.polling import async_wait_until
from tests.support.ports import free_port

# Seconds between two checks of a replica, and until a check without a response fails.
_CHECK_INTERVAL_S = 0.05
_CHECK_TIMEOUT_S = scaled(3.0)
_CHUNK_BYTES = 65_536
HAPROXY_PATH = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NGINX_PATH = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_HAPROXY_CONFIGURATION = """
defaults
    mode http
    timeout connect 10s
    timeout check 10s
    timeout client 60s
    timeout server {server_timeout}
    # No retries, so that a test sees every failure.
    retries 0
frontend registry
    bind 127.0.0.1:{port}
{rules}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready
    default-server check inter 200ms fall 2 rise 1
"""

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
    proxy_cache_path {folder}/cache keys_zone=responses:1m;
    upstream replicas {{ {servers} keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
{locations}
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            {options}
        }}
    }}
}}
"""


class RoundRobinBalancer:
    """Forwards each connection to the next ready replica, and checks often which replicas are ready.

    It does not read requests: a client with an open connection stays on its replica until that closes the connection.
    `urls` are the replicas, which may stop and restart at their URLs; while none is ready, connections go to all of
    them.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.port = 0
        self.ready: list[tuple[str, int]] = []
        self._replicas = [_address(url) for url in urls]
        self._next_replica = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Forward connections until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(await asyncio.start_server(self._serve_connection, "127.0.0.1", 0))
            self.port = server.sockets[0].getsockname()[1]
            stack.push_async_callback(self._cancel_connections)
            async with asyncio.TaskGroup() as group:
                for replica in self._replicas:
                    group.create_task(self._check_replica(replica))

    async def _cancel_connections(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _check_replica(self, replica: tuple[str, int]) -> None:
        while True:
            if not await _is_ready(replica):
                self.ready = [each for each in self.ready if each != replica]
            elif replica not in self.ready:
                self.ready.append(replica)
            await asyncio.sleep(_CHECK_INTERVAL_S)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._next_replica += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                targets = self.ready or self._replicas
                upstream = await asyncio.open_connection(*targets[self._next_replica % len(targets)])
                await _relay((reader, writer), upstream)
        finally:
            self._tasks.discard(task)
            writer.close()


async def _relay(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter], server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Forward bytes in both directions until either side ends; bytes that were read are written."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()

    pumps = [asyncio.create_task(pump(client[0], server[1])), asyncio.create_task(pump(server[0], client[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server[1].close()
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _is_ready(replica: tuple[str, int]) -> bool:
    """Request /ready over a new connection."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*replica)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n\r\n")
                return (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
    return False


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@contextlib.asynccontextmanager
async def round_robin_balancer(urls: Sequence[str], _folder: Path) -> AsyncIterator[str]:
    """Provide the URL of a round robin balancer for these replicas, all of which are ready."""
    balancer = RoundRobinBalancer(urls)
    serving = asyncio.create_task(balancer.serve())
    try:
        await async_wait_until(lambda: len(balancer.ready) == len(urls), description="all replicas are ready")
        yield f"http://127.0.0.1:{balancer.port}"
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


@contextlib.asynccontextmanager
async def haproxy(
    urls: Sequence[str], folder: Path, *, server_timeout: str = "60s", rules: str = ""
) -> AsyncIterator[str]:
    """Provide the URL of an haproxy for these replicas, all of which are ready; it closes idle connections.

    `rules` are lines of its frontend.
    """
    assert HAPROXY_PATH is not None
    port = free_port()
    servers = "".join(
        f"    server replica{at} {host}:{at_port}\n" for at, (host, at_port) in enumerate(map(_address, urls))
    )
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        _HAPROXY_CONFIGURATION.format(port=port, server_timeout=server_timeout, rules=rules) + servers
    )
    with ChildProcess(HAPROXY_PATH, "-db", "-f", configuration):
        await async_wait_until(lambda: _is_ready(("127.0.0.1", port)), description="haproxy forwards requests")
        yield f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def nginx(urls: Sequence[str], folder: Path, options: str = "", *, locations: str = "") -> AsyncIterator[str]:
    """Provide the URL of an nginx with these options; its cache is called `responses`.

    `locations` are lines of its server, before the location that forwards requests.
    """
    assert NGINX_PATH is not None
    port = free_port()
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in urls)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(folder=folder, port=port, servers=servers, options=options, locations=locations)
    )
    with ChildProcess(NGINX_PATH, "-c", configuration, "-e", folder / "error.log"):
        await wait_until_it_forwards(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


async def wait_until_it_forwards(url: str) -> None:
    """Wait until a load balancer forwards requests to a replica that is ready."""
    await async_wait_until(lambda: _is_ready(_address(url)), description=f"{url} forwards requests")
