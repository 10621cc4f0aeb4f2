"""The benchmark of watches: latency of changes at a thousand watchers, and their memory."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import cast

from benchmarks import agents
from benchmarks.context import STEP_TIMEOUT_S, BenchmarkContext, filled_mesh
from benchmarks.load_generator import quantile
from benchmarks.servers import Mesh
from benchmarks.table import Table, milliseconds, verdict

WATCHER_COUNT = 1000
# Connections that write changes, so that a slow response does not delay the next change.
_WRITER_COUNT = 8
_EVENT = re.compile(rb'^\{"type":"(?:ADDED|MODIFIED|DELETED)".*"resource_version":"(\d+)"\}$', re.MULTILINE)
_VERSION = re.compile(rb'"resource_version":"(\d+)"')


class _Watcher(asyncio.Protocol):
    """One watch; records the `time.perf_counter` at which each version arrived."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._incomplete_line = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received_at: dict[int, float] = {}
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)
        self.transport.write(agents.request("GET", self._path))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200 "), data[:300]
            self.opened.set_result(None)
        whole = self._incomplete_line + data
        lines_end = whole.rfind(b"\n") + 1
        self._incomplete_line = whole[lines_end:]
        for found in _EVENT.finditer(whole, 0, lines_end):
            version = int(found[1])
            assert not self.received_at or version > next(reversed(self.received_at)), (
                "a version arrived twice or out of order"
            )
            self.received_at[version] = now


@contextlib.asynccontextmanager
async def _open_watches(port: int, paths: Sequence[str]) -> AsyncIterator[list[_Watcher]]:
    loop = asyncio.get_running_loop()
    watchers = []
    try:
        for path in paths:
            _, watcher = await loop.create_connection(partial(_Watcher, path), "127.0.0.1", port)
            watchers.append(watcher)
        await asyncio.gather(*(watcher.opened for watcher in watchers))
        yield watchers
    finally:
        for watcher in watchers:
            watcher.transport.close()


async def _make_changes(port: int, changes: Iterator[bytes], rate: float, seconds: float) -> dict[int, float]:
    """Make `rate` changes a second; return the due time of each by its version."""
    due: dict[int, float] = {}
    started = time.perf_counter()
    numbers = iter(range(int(rate * seconds)))

    async def writer() -> None:
        reader, writer_stream = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            due_at = started + number / rate
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
            writer_stream.write(next(changes))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            found = _VERSION.search(body)
            assert agents.succeeded(body), body
            assert found is not None
            due[int(found[1])] = due_at
        writer_stream.close()

    await asyncio.gather(*(writer() for _ in range(_WRITER_COUNT)))
    return due


async def _measure_delivery(
    mesh: Mesh, paths: Sequence[str], agent_count: int, rate: float, seconds: float
) -> tuple[list[float], float]:
    """Return the latency of every delivery in seconds, and the memory of the watchers in bytes."""
    port, replica = mesh.replica.port, mesh.replica
    changes = (exchange[0] for exchange in agents.registrations(agent_count))
    # Once without watchers, so that the memory of the changes is not counted.
    await _make_changes(port, changes, rate, seconds)
    before = replica.resident_bytes
    async with asyncio.timeout(STEP_TIMEOUT_S), _open_watches(port, paths) as watchers:
        due = await _make_changes(port, changes, rate, seconds)
        # A watch starts at the replica's version, which may be a change or two before the acknowledged one.
        share = len(due) // len(set(paths))
        while any(len(watcher.received_at.keys() & due.keys()) < share for watcher in watchers):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        memory_growth = replica.resident_bytes - before
        latencies = [
            at - due[version] for watcher in watchers for version, at in watcher.received_at.items() if version in due
        ]
        assert len(latencies) == share * len(watchers), "an event was delivered to a watcher it does not match"
    return latencies, memory_growth


async def watch_latency(context: BenchmarkContext) -> Table:
    """Deliver changes to a thousand watchers of all agents, and to watchers of one capability each."""
    table = Table(
        f"{WATCHER_COUNT:,} watchers on one replica, latency from the moment a change was due",
        ("case", "changes/s", "deliveries", "p50 ms", "p99 ms", "longest ms", "target", "MB for the watchers"),
    )
    paths_of_all_agents = ["/agents?watch=true"] * WATCHER_COUNT
    paths_of_one_capability = [
        f"/agents?watch=true&capability=own-{agents.agent_name(number)}" for number in range(WATCHER_COUNT)
    ]
    with contextlib.ExitStack() as stack:
        mesh = await filled_mesh(stack, context.options.cores, WATCHER_COUNT)
        seconds = 2 * context.options.seconds
        for name, paths, rate in (
            ("all watch all agents", paths_of_all_agents, 20.0),
            ("each watches one capability", paths_of_one_capability, 500.0),
        ):
            print(f"watch, {name}")
            rounded = (
                max(1, round(rate * seconds / WATCHER_COUNT)) * WATCHER_COUNT / rate
                if paths is paths_of_one_capability
                else seconds
            )
            latencies, memory_growth = await _measure_delivery(mesh, paths, WATCHER_COUNT, rate, rounded)
            p99 = quantile(latencies, 0.99)
            table.add(
                name,
                f"{rate:,.0f}",
                f"{len(latencies):,}",
                milliseconds(quantile(latencies, 0.5)),
                milliseconds(p99),
                milliseconds(max(latencies)),
                verdict(p99 * 1000, at_most=150),
                f"{memory_growth / 1e6:.0f}",
            )
    return table
