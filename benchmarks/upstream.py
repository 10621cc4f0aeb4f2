"""`python -m benchmarks.upstream BINARY`: compare this registry with the registry of mcp-mesh.

BINARY is `mcp-mesh-registry` of the npm package @mcpmesh/cli-linux-x64. PostgreSQL's programs are expected under
/usr/lib/postgresql (Debian's package `postgresql`); the run needs root, as it starts them as user postgres.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.compared_registries import (
    RunningRegistry,
    running_ours,
    running_upstream_postgres,
    running_upstream_sqlite,
)
from benchmarks.mcpmesh_agents import linked_agent, provider_and_consumer
from benchmarks.table import Table

AGENTS, PAIRS, BYSTANDERS = 1_000, 1_000, 200
CONNECTIONS = 32
REPEATS = 3
# Requests of one measurement; those of upstream take up to a tenth of a second each.
REQUEST_COUNTS = {"HEAD": 2_000, "POST": 1_000, "LIST": 50, "GZIP": 50}
# HEAD requests, 0.1 s apart, in which a consumer must be notified of its provider.
MAX_POLLS = 20
_MAX_ATTEMPTS = 20
# Minimum ratio of upstream's CPU time to ours, with PostgreSQL and with SQLite.
MIN_RATIOS = {"HEAD": (20, 5), "POST": (10, 3), "LIST": (20, 20), "GZIP": (20, 20)}
REQUEST_LABELS = {
    "HEAD": "HEAD /heartbeat/{id}",
    "POST": "POST /heartbeat, one dependency",
    "LIST": "GET /agents",
    "GZIP": "GET /agents, as meshctl requests it",
}

SendRequest = Callable[[int], Awaitable[None]]


class MeasuredClient:
    """Client of one registry, round robin over its ports."""

    def __init__(self, session: aiohttp.ClientSession, registry: RunningRegistry) -> None:
        self._session = session
        self._urls = [f"http://127.0.0.1:{port}" for port in registry.ports]

    async def post(self, document: dict[str, Any], replica: int = 0, *, attempts: int = 1) -> dict[str, Any]:
        """Send an agent in the mcp-mesh format; return the successful response.

        Upstream rejects some concurrent registrations of the same new schema; they are sent again.
        """
        result: dict[str, Any] = {}
        for _ in range(attempts):
            async with self._session.post(f"{self._urls[replica]}/heartbeat", json=document) as response:
                result = await response.json()
            if result.get("status") == "success":
                return result
        raise AssertionError(result)

    async def head(self, agent_id: str, replica: int = 0) -> int:
        """Send a lightweight heartbeat; return the status code."""
        async with self._session.head(f"{self._urls[replica]}/heartbeat/{agent_id}") as response:
            return response.status

    async def list_agents(self, accept: str = "identity") -> None:
        """Read all agents; upstream never compresses."""
        headers = {"accept-encoding": accept}
        async with self._session.get(f"{self._urls[0]}/agents", headers=headers, auto_decompress=False) as response:
            assert len(await response.read()) > AGENTS

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return len(self._urls)


@contextlib.asynccontextmanager
async def open_client(registry: RunningRegistry) -> AsyncIterator[MeasuredClient]:
    """Open a client with one connection per concurrent request."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=120)
    headers = {"accept": "*/*", "accept-encoding": "identity"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield MeasuredClient(session, registry)


async def send_concurrently(count: int, send: SendRequest) -> None:
    """Call `send` with each number below `count`, as many calls at once as there are connections."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


async def measure_costs(registry: RunningRegistry) -> dict[str, float]:
    """Return the median CPU-seconds per request of each kind, including those of the database."""
    documents = [linked_agent(number) for number in range(AGENTS)]
    async with open_client(registry) as client:
        for _ in range(2):
            await send_concurrently(AGENTS, lambda number: _post(client, documents[number], attempts=_MAX_ATTEMPTS))
        requests: dict[str, SendRequest] = {
            "HEAD": lambda number: _send_head(client, documents[number % AGENTS]["agent_id"]),
            "POST": lambda number: _post(client, documents[number % AGENTS]),
            "LIST": lambda _: client.list_agents(),
            "GZIP": lambda _: client.list_agents("gzip"),
        }
        costs: dict[str, list[float]] = {kind: [] for kind in requests}
        for (kind, send), _ in itertools.product(requests.items(), range(REPEATS)):
            started = registry.cpu_seconds
            await send_concurrently(REQUEST_COUNTS[kind], send)
            costs[kind].append((registry.cpu_seconds - started) / REQUEST_COUNTS[kind])
    return {kind: statistics.median(each) for kind, each in costs.items()}


async def _post(client: MeasuredClient, document: dict[str, Any], *, attempts: int = 1) -> None:
    await client.post(document, attempts=attempts)


async def _send_head(client: MeasuredClient, agent_id: str) -> None:
    assert await client.head(agent_id) in (200, 202)


async def count_unresolved_pairs(registry: RunningRegistry) -> tuple[int, int]:
    """Register pairs at the same time, each half at another replica; return how many consumers are never notified.

    The second number counts the consumers whose first response had no provider.
    """
    unresolved: list[str] = []
    async with open_client(registry) as client:

        async def pair(number: int) -> None:
            provider, consumer = provider_and_consumer(number)
            responses = await asyncio.gather(
                client.post(provider, 0, attempts=_MAX_ATTEMPTS),
                client.post(consumer, client.replicas - 1, attempts=_MAX_ATTEMPTS),
            )
            if responses[1]["dependencies_resolved"]["use"][0]["status"] != "available":
                unresolved.append(consumer["agent_id"])

        await send_concurrently(PAIRS, pair)
        in_time = await asyncio.gather(*(_is_notified(client, agent_id) for agent_id in unresolved))
    return in_time.count(False), len(unresolved)


async def _is_notified(client: MeasuredClient, agent_id: str) -> bool:
    for attempt in range(MAX_POLLS):
        if await client.head(agent_id, attempt % client.replicas) == 202:
            return True
        await asyncio.sleep(0.1)
    return False


async def count_notified_bystanders(registry: RunningRegistry) -> int:
    """Register an agent without dependents; return how many other agents must send a full update."""
    documents = [linked_agent(number, group="existing") for number in range(BYSTANDERS)]
    async with open_client(registry) as client:
        for _ in range(2):
            await send_concurrently(BYSTANDERS, lambda number: _post(client, documents[number], attempts=_MAX_ATTEMPTS))
        # Upstream compares timestamps, so the next agent must join later.
        await asyncio.sleep(1.5)
        for document in documents:
            if await client.head(document["agent_id"]) == 202:
                await client.post(document)
        await client.post(linked_agent(0, group="unrelated"))
        statuses = [await client.head(document["agent_id"]) for document in documents]
    return statuses.count(202)


def report(costs_of: dict[str, dict[str, float]]) -> Table:
    """Return the table of CPU times per request with their ratios."""
    table = Table(
        f"CPU per request at {AGENTS:,} agents, each registry's database included",
        ("request", "ours", "with PostgreSQL", "ratio", "with SQLite", "ratio", "targets"),
    )
    for kind, (min_postgres, min_sqlite) in MIN_RATIOS.items():
        ours, postgres, sqlite = (costs_of[name][kind] for name in ("ours", "postgres", "sqlite"))
        met = postgres / ours >= min_postgres and sqlite / ours >= min_sqlite
        table.add(
            REQUEST_LABELS[kind],
            *(
                f"{ours * 1e6:,.0f} µs",
                f"{postgres * 1e6:,.0f} µs",
                f"{postgres / ours:.1f}",
                f"{sqlite * 1e6:,.0f} µs",
                f"{sqlite / ours:.1f}",
            ),
            f">= {min_postgres}, >= {min_sqlite} {'met' if met else 'MISSED'}",
        )
    return table


async def run(binary: Path) -> Iterable[Table]:
    """Measure everything."""
    registries: dict[str, Callable[[int], contextlib.AbstractContextManager[RunningRegistry]]] = {
        "ours": running_ours,
        "postgres": lambda replicas: running_upstream_postgres(binary, replicas),
        "sqlite": lambda _: running_upstream_sqlite(binary),
    }
    costs = {}
    for name, start in registries.items():
        with start(1) as registry:
            costs[name] = await measure_costs(registry)
        print(f"{name}: {', '.join(f'{kind} {cost * 1e6:,.0f} µs' for kind, cost in costs[name].items())}", flush=True)
    changes = Table(
        f"{PAIRS:,} pairs of consumer and provider over two replicas; one unrelated agent joins {BYSTANDERS} agents",
        ("registry", "first response without provider", "never notified", "sent a full update after an unrelated join"),
    )
    for name in ("ours", "postgres"):
        with registries[name](2) as registry:
            never_notified, unresolved = await count_unresolved_pairs(registry)
        with registries[name](1) as registry:
            changes.add(
                name,
                f"{unresolved}",
                f"{never_notified}",
                f"{await count_notified_bystanders(registry)} of {BYSTANDERS}",
            )
    return report(costs), changes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("binary", type=Path, help="upstream's mcp-mesh-registry")
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        sys.exit(f"{arguments.binary} does not exist; run npm install @mcpmesh/cli-linux-x64")
    for table in asyncio.run(run(arguments.binary.resolve())):
        print(f"\n{table}")
