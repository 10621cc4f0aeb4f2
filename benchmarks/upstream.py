"""`python -m benchmarks.upstream BINARY`: ours beside the registry that mesh clients were written for, in one run.

BINARY is `mcp-mesh-registry` of the npm package @mcpmesh/cli-linux-x64. PostgreSQL's programs are looked for under
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
# What a consumer that was answered without its provider is given to be told by a HEAD, in looks 0.1 s apart.
MAX_POLLS = 20
_MAX_ATTEMPTS = 20
# How many times cheaper ours has to be than upstream with PostgreSQL, and with SQLite.
MIN_RATIOS = {"HEAD": (20, 5), "POST": (10, 3), "LIST": (20, 20), "GZIP": (20, 20)}
REQUEST_LABELS = {
    "HEAD": "HEAD /heartbeat/{id}",
    "POST": "POST /heartbeat, one dependency",
    "LIST": "GET /agents",
    "GZIP": "GET /agents, as meshctl asks",
}

SendRequest = Callable[[int], Awaitable[None]]


class MeasuredClient:
    """Speaks to one rival through all of its ports in turn."""

    def __init__(self, session: aiohttp.ClientSession, rival: RunningRegistry) -> None:
        self._session = session
        self._urls = [f"http://127.0.0.1:{port}" for port in rival.ports]

    async def post(self, document: dict[str, Any], replica: int = 0, *, attempts: int = 1) -> dict[str, Any]:
        """Send an agent in flat form; return the answer, which is a success.

        Upstream refuses some of those who bring the same new schema at the same moment; they try again.
        """
        told: dict[str, Any] = {}
        for _ in range(attempts):
            async with self._session.post(f"{self._urls[replica]}/heartbeat", json=document) as answer:
                told = await answer.json()
            if told.get("status") == "success":
                return told
        raise AssertionError(told)

    async def head(self, agent_id: str, replica: int = 0) -> int:
        """Send a sign of life; return the status."""
        async with self._session.head(f"{self._urls[replica]}/heartbeat/{agent_id}") as answer:
            return answer.status

    async def list_agents(self, accept: str = "identity") -> None:
        """Read all agents; upstream packs nothing, whatever is accepted."""
        headers = {"accept-encoding": accept}
        async with self._session.get(f"{self._urls[0]}/agents", headers=headers, auto_decompress=False) as answer:
            assert len(await answer.read()) > AGENTS

    @property
    def replicas(self) -> int:
        """How many there are."""
        return len(self._urls)


@contextlib.asynccontextmanager
async def open_client(registry: RunningRegistry) -> AsyncIterator[MeasuredClient]:
    """Provide a client with as many connections as there are clients at once."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=120)
    headers = {"accept": "*/*", "accept-encoding": "identity"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield MeasuredClient(session, registry)


async def send_concurrently(count: int, send: SendRequest) -> None:
    """Ask so often, as many at once as there are connections."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


async def measure_costs(rival: RunningRegistry) -> dict[str, float]:
    """Return CPU-seconds per request, those of the database included: of each kind the median."""
    documents = [linked_agent(number) for number in range(AGENTS)]
    async with open_client(rival) as client:
        for _ in range(2):
            await send_concurrently(AGENTS, lambda number: _post(client, documents[number], attempts=_MAX_ATTEMPTS))
        asks: dict[str, SendRequest] = {
            "HEAD": lambda number: _send_head(client, documents[number % AGENTS]["agent_id"]),
            "POST": lambda number: _post(client, documents[number % AGENTS]),
            "LIST": lambda _: client.list_agents(),
            "GZIP": lambda _: client.list_agents("gzip"),
        }
        found: dict[str, list[float]] = {kind: [] for kind in asks}
        for (kind, ask), _ in itertools.product(asks.items(), range(REPEATS)):
            began = rival.cpu_seconds
            await send_concurrently(REQUEST_COUNTS[kind], ask)
            found[kind].append((rival.cpu_seconds - began) / REQUEST_COUNTS[kind])
    return {kind: statistics.median(each) for kind, each in found.items()}


async def _post(client: MeasuredClient, document: dict[str, Any], *, attempts: int = 1) -> None:
    await client.post(document, attempts=attempts)


async def _send_head(client: MeasuredClient, agent_id: str) -> None:
    assert await client.head(agent_id) in (200, 202)


async def count_unresolved_pairs(rival: RunningRegistry) -> tuple[int, int]:
    """Let pairs register at the same moment, each half with another replica; return how many consumers stay without.

    Also returns how many were first answered without their provider.
    """
    unresolved: list[str] = []
    async with open_client(rival) as client:

        async def pair(number: int) -> None:
            provider, consumer = provider_and_consumer(number)
            answers = await asyncio.gather(
                client.post(provider, 0, attempts=_MAX_ATTEMPTS),
                client.post(consumer, client.replicas - 1, attempts=_MAX_ATTEMPTS),
            )
            if answers[1]["dependencies_resolved"]["use"][0]["status"] != "available":
                unresolved.append(consumer["agent_id"])

        await send_concurrently(PAIRS, pair)
        in_time = await asyncio.gather(*(_is_notified(client, agent_id) for agent_id in unresolved))
    return in_time.count(False), len(unresolved)


async def _is_notified(client: MeasuredClient, agent_id: str) -> bool:
    for look in range(MAX_POLLS):
        if await client.head(agent_id, look % client.replicas) == 202:
            return True
        await asyncio.sleep(0.1)
    return False


async def count_notified_bystanders(rival: RunningRegistry) -> int:
    """Let one agent join that nobody needs; return how many settled agents are told to send everything."""
    documents = [linked_agent(number, group="settled") for number in range(BYSTANDERS)]
    async with open_client(rival) as client:
        for _ in range(2):
            await send_concurrently(BYSTANDERS, lambda number: _post(client, documents[number], attempts=_MAX_ATTEMPTS))
        # Upstream compares times: who joined in the same moment is not told apart.
        await asyncio.sleep(1.5)
        for document in documents:
            if await client.head(document["agent_id"]) == 202:
                await client.post(document)
        await client.post(linked_agent(0, group="stranger"))
        statuses = [await client.head(document["agent_id"]) for document in documents]
    return statuses.count(202)


def report(costs_of: dict[str, dict[str, float]]) -> Table:
    """Return the table of what requests cost, and how many times cheaper ours are."""
    table = Table(
        f"CPU per request at {AGENTS:,} agents, each registry's database included",
        ("request", "ours", "with PostgreSQL", "ratio", "with SQLite", "ratio", "targets"),
    )
    for kind, (least_postgres, least_sqlite) in MIN_RATIOS.items():
        our, pg, lite = (costs_of[name][kind] for name in ("ours", "postgres", "sqlite"))
        met = pg / our >= least_postgres and lite / our >= least_sqlite
        table.add(
            REQUEST_LABELS[kind],
            *(f"{our * 1e6:,.0f} µs", f"{pg * 1e6:,.0f} µs", f"{pg / our:.1f}", f"{lite * 1e6:,.0f} µs"),
            *(f"{lite / our:.1f}", f">= {least_postgres}, >= {least_sqlite} {'met' if met else 'MISSED'}"),
        )
    return table


async def run(binary: Path) -> Iterable[Table]:
    """Measure everything."""
    rivals: dict[str, Callable[[int], contextlib.AbstractContextManager[RunningRegistry]]] = {
        "ours": running_ours,
        "postgres": lambda replicas: running_upstream_postgres(binary, replicas),
        "sqlite": lambda _: running_upstream_sqlite(binary),
    }
    found = {}
    for name, start in rivals.items():
        with start(1) as rival:
            found[name] = await measure_costs(rival)
        print(f"{name}: {', '.join(f'{kind} {cost * 1e6:,.0f} µs' for kind, cost in found[name].items())}", flush=True)
    changes = Table(
        f"{PAIRS:,} pairs of consumer and provider at once over two replicas; one stranger joins {BYSTANDERS} agents",
        ("registry", "answered without", "of these never told", "sent everything for a stranger"),
    )
    for name in ("ours", "postgres"):
        with rivals[name](2) as rival:
            lost, unresolved = await count_unresolved_pairs(rival)
        with rivals[name](1) as rival:
            changes.add(name, f"{unresolved}", f"{lost}", f"{await count_notified_bystanders(rival)} of {BYSTANDERS}")
    return report(found), changes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("binary", type=Path, help="upstream's mcp-mesh-registry")
    given = parser.parse_args()
    if not given.binary.exists():
        sys.exit(f"{given.binary} is not there; npm install @mcpmesh/cli-linux-x64 brings it")
    for table in asyncio.run(run(given.binary.resolve())):
        print(f"\n{table}")
