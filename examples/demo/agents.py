"""The agents of the demo: what they say of themselves, and how it goes when all of them say it at once."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.cli.caller import Caller, CallFailed

_MAX_CONNECTIONS = 100

# One team's agents and what they can do; the fleet repeats them.
_CAPABILITIES_BY_AGENT_KIND = {
    "file": ("read_file", "write_file", "list_directory", "search_files"),
    "database": ("run_query", "list_tables", "describe_table", "explain_query"),
    "web": ("search_web", "fetch_page", "extract_links", "summarize_page"),
    "mail": ("send_mail", "search_mail", "read_thread", "list_folders"),
}


@dataclass
class RoundResult:
    """What came of one round: who is registered, after how many seconds each, and why others are not."""

    registered_ids: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    duration_s: float = 0.0

    def latency_percentile(self, fraction: float) -> float:
        """Return the latency that this share of the registrations did not exceed; NaN when there was none."""
        return (
            sorted(self.latencies_s)[math.ceil(fraction * len(self.latencies_s)) - 1] if self.latencies_s else math.nan
        )


def demo_agent(number: int) -> dict[str, Any]:
    """Return the registration of the agent with this number, unlike any other's."""
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
    agents: Sequence[dict[str, Any]], urls: Sequence[str], on_registered: Callable[[], None]
) -> RoundResult:
    """Register all agents, the first at the first replica, the second at the second, and so on in turn.

    There are at most 100 connections, open before the clock starts; `on_registered` is called after each registration.
    """
    # As many to each replica, so that the turn of the connections is the turn of the replicas.
    each = max(1, min(_MAX_CONNECTIONS, len(agents)) // len(urls))
    callers = [Caller(url) for _ in range(each) for url in urls]
    done = RoundResult()
    try:
        await asyncio.gather(*map(_open_connection, callers))
        began = time.perf_counter()
        shares = (agents[at :: len(callers)] for at in range(len(callers)))
        await asyncio.gather(
            *(_register_sequentially(*pair, done, on_registered) for pair in zip(callers, shares, strict=True))
        )
        done.duration_s = time.perf_counter() - began
    finally:
        for caller in callers:
            caller.close()
    return done


async def _open_connection(caller: Caller) -> None:
    with contextlib.suppress(CallFailed):  # then its registrations will fail, and are counted
        await caller.call("GET", "/health")


async def _register_sequentially(
    caller: Caller, agents: Sequence[dict[str, Any]], result: RoundResult, on_registered: Callable[[], None]
) -> None:
    for agent in agents:
        began = time.perf_counter()
        try:
            await caller.call("POST", "/agents", agent)
        except CallFailed as error:
            result.failures.append(str(error))
        else:
            result.latencies_s.append(time.perf_counter() - began)
            result.registered_ids.append(agent["id"])
        on_registered()
