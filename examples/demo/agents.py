"""The registrations of the demo's agents, and the round in which they register at the same time."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp_mesh_client import ClientError, RegistryClient

_MAX_CALLS_IN_FLIGHT = 100

# The agents of one team with their capabilities; demo_agent repeats them.
_CAPABILITIES_BY_AGENT_KIND = {
    "file": ("read_file", "write_file", "list_directory", "search_files"),
    "database": ("run_query", "list_tables", "describe_table", "explain_query"),
    "web": ("search_web", "fetch_page", "extract_links", "summarize_page"),
    "mail": ("send_mail", "search_mail", "read_thread", "list_folders"),
}


@dataclass
class RoundResult:
    """The result of one round: the registered ids, the latency of each, and the failures of the others."""

    registered_ids: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    def latency_percentile(self, fraction: float) -> float:
        """Return the latency that this share of the registrations did not exceed; NaN without registrations."""
        return (
            sorted(self.latencies_s)[math.ceil(fraction * len(self.latencies_s)) - 1] if self.latencies_s else math.nan
        )


def demo_agent(number: int) -> dict[str, Any]:
    """Return the registration of the agent with this number; each number gives a different one."""
    kind, capabilities = list(_CAPABILITIES_BY_AGENT_KIND.items())[number % len(_CAPABILITIES_BY_AGENT_KIND)]
    return {
        "id": f"{kind}-agent-{number:05}",
        "name": f"{kind.capitalize()} Agent {number}",
        "namespace": "demo",
        "agent_type": f"{kind}_agent",
        "endpoint": f"http://{kind}-{number}.demo.internal:8080/mcp",
        "version": "1.4.2",
        "labels": {"env": "demo", "team": f"team-{number % 7}"},
        "health_interval": 30.0,
        "capabilities": [
            {
                "name": name,
                "description": f"{name.replace('_', ' ').capitalize()}, as {kind} agents do",
                "category": f"{kind}_operations",
                "version": f"1.{number % 10}.0",
                "stability": "stable",
                "tags": [kind, "demo"],
                "input_schema": {
                    "type": "object",
                    "properties": {"target": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}},
                    "required": ["target"],
                },
            }
            for name in capabilities
        ],
    }


async def register_concurrently(
    agents: Sequence[dict[str, Any]], clients: Sequence[RegistryClient], on_registered: Callable[[], None]
) -> RoundResult:
    """Register all agents, round robin over the clients, each of which calls one replica.

    At most 100 calls are in flight. The connections are opened before the clock starts. `on_registered` is called after
    each registration.
    """
    workers_per_client = max(1, min(_MAX_CALLS_IN_FLIGHT, len(agents)) // len(clients))
    workers = [*clients] * workers_per_client
    result = RoundResult()
    await asyncio.gather(*map(_open_connection, workers))
    started = time.perf_counter()
    shares = (agents[at :: len(workers)] for at in range(len(workers)))
    await asyncio.gather(
        *(_register_sequentially(*pair, result, on_registered) for pair in zip(workers, shares, strict=True))
    )
    result.duration_s = time.perf_counter() - started
    return result


async def _open_connection(client: RegistryClient) -> None:
    with contextlib.suppress(ClientError):  # its registrations will fail, and are counted
        await client.health()


async def _register_sequentially(
    client: RegistryClient, agents: Sequence[dict[str, Any]], result: RoundResult, on_registered: Callable[[], None]
) -> None:
    for agent in agents:
        started = time.perf_counter()
        try:
            response = await client.register_agent(agent)
        except ClientError as error:
            result.failures.append(str(error))
        else:
            if "error" in response:
                result.failures.append(response["message"])
            else:
                result.latencies_s.append(time.perf_counter() - started)
                result.registered_ids.append(agent["id"])
        on_registered()
