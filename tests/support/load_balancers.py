"""Balancers as a fleet has them in front: one of our own, small enough to be always there, and haproxy."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.child_process import Child
from tests.support.polling import async_wait_until
from tests.support.ports import free_port

# Seconds between two looks at one replica, and until one that does not answer is taken for away.
_LOOK_EVERY = 0.05
_PATIENCE = 3.0
_CHUNK = 65_536
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server {server_timeout}
    # What fails is to be seen: no second try hides it.
    retries 0
frontend registry
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready
    default-server check inter 200ms fall 2 rise 1
"""


class Balancer:
    """Hands each connection to the next replica that is ready, and asks all of them often whether they are.

    It looks at no request: a client that keeps its connection keeps its replica until that one ends the connection.
    `urls` are the replicas, which may come and go at their addresses; while none is ready, all of them get their share.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.port = 0
        self.ready: list[tuple[str, int]] = []
        self._replicas = [_address(url) for url in urls]
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Balance until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(await asyncio.start_server(self._join, "127.0.0.1", 0))
            self.port = server.sockets[0].getsockname()[1]
            stack.push_async_callback(self._end)
            async with asyncio.TaskGroup() as group:
                for replica in self._replicas:
                    group.create_task(self._look(replica))

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, replica: tuple[str, int]) -> None:
        while True:
            if not await _is_ready(replica):
                self.ready = [each for each in self.ready if each != replica]
            elif replica not in self.ready:
                self.ready.append(replica)
            await asyncio.sleep(_LOOK_EVERY)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._turn += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                takers = self.ready or self._replicas
                there = await asyncio.open_connection(*takers[self._turn % len(takers)])
                await _pass_on((reader, writer), there)
        finally:
            self._tasks.discard(task)
            writer.close()


async def _pass_on(
    here: tuple[asyncio.StreamReader, asyncio.StreamWriter], there: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Pass bytes both ways until either side ends; what was read before is written out."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()

    pumps = [asyncio.create_task(pump(here[0], there[1])), asyncio.create_task(pump(there[0], here[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        there[1].close()
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _is_ready(replica: tuple[str, int]) -> bool:
    """Ask /ready over a connection of its own."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(*replica)
            try:
                writer.write(b"GET /ready HTTP/1.1\r\nhost: registry\r\nconnection: close\r\n\r\n")
                return (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
    return False


def _address(url: str) -> tuple[str, int]:
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    return where.hostname, where.port


@contextlib.asynccontextmanager
async def our_balancer(urls: Sequence[str], _folder: Path) -> AsyncIterator[str]:
    """Provide the URL of a balancer of our own in front of these replicas, all of which are ready."""
    balancer = Balancer(urls)
    serving = asyncio.create_task(balancer.serve())
    try:
        await async_wait_until(lambda: len(balancer.ready) == len(urls), description="the balancer sees all replicas")
        yield f"http://127.0.0.1:{balancer.port}"
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


@contextlib.asynccontextmanager
async def haproxy(urls: Sequence[str], folder: Path, *, server_timeout: str = "60s") -> AsyncIterator[str]:
    """Provide the URL of an haproxy in front of these replicas, all of which are ready; it cuts what is silent."""
    assert HAPROXY is not None
    port = free_port()
    servers = "".join(
        f"    server replica{at} {host}:{at_port}\n" for at, (host, at_port) in enumerate(map(_address, urls))
    )
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(port=port, server_timeout=server_timeout) + servers)
    with Child(HAPROXY, "-db", "-f", configuration):
        await async_wait_until(lambda: _is_ready(("127.0.0.1", port)), description="haproxy passes requests on")
        yield f"http://127.0.0.1:{port}"
