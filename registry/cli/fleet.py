"""The agents of the demo: what they say of themselves, and how it goes when all of them say it at once."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.cli.caller import Caller, CallFailed

_MOST_CONNECTIONS = 100

# One team's agents and what they can do; the fleet repeats them.
_KINDS = {
    "file": ("read_file", "write_file", "list_directory", "search_files"),
    "database": ("run_query", "list_tables", "describe_table", "explain_query"),
    "web": ("search_web", "fetch_page", "extract_links", "summarize_page"),
    "mail": ("send_mail", "search_mail", "read_thread", "list_folders"),
}


@dataclass
class Round:
    """What came of one round: who is registered, after how many seconds each, and why others are not."""

    ids: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the registrations did not exceed; NaN when there was none."""
        return sorted(self.latencies)[math.ceil(share * len(self.latencies)) - 1] if self.latencies else math.nan


def an_agent(number: int) -> dict[str, Any]:
    """Return the registration of the agent with this number, unlike any other's."""
    kind, capabilities = list(_KINDS.items())[number % len(_KINDS)]
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


async def register_at_once(
    agents: Sequence[dict[str, Any]], urls: Sequence[str], on_answer: Callable[[], None]
) -> Round:
    """Register all agents, the first at the first replica, the second at the second, and so on in turn.

    There are at most 100 connections, open before the clock starts; `on_answer` is called after each registration.
    """
    # As many to each replica, so that the turn of the connections is the turn of the replicas.
    each = max(1, min(_MOST_CONNECTIONS, len(agents)) // len(urls))
    callers = [Caller(url) for _ in range(each) for url in urls]
    done = Round()
    try:
        await asyncio.gather(*map(_greet, callers))
        began = time.perf_counter()
        shares = (agents[at :: len(callers)] for at in range(len(callers)))
        await asyncio.gather(*(_register(*pair, done, on_answer) for pair in zip(callers, shares, strict=True)))
        done.seconds = time.perf_counter() - began
    finally:
        for caller in callers:
            caller.close()
    return done


async def _greet(caller: Caller) -> None:
    with contextlib.suppress(CallFailed):  # then its registrations will fail, and are counted
        await caller.call("GET", "/health")


async def _register(
    caller: Caller, agents: Sequence[dict[str, Any]], done: Round, on_answer: Callable[[], None]
) -> None:
    for agent in agents:
        began = time.perf_counter()
        try:
            await caller.call("POST", "/agents", agent)
        except CallFailed as error:
            done.failures.append(str(error))
        else:
            done.latencies.append(time.perf_counter() - began)
            done.ids.append(agent["id"])
        on_answer()
