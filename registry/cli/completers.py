"""Shell completion with names from the registry; there are none if the registry does not respond quickly."""

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import click

from registry.cli.connection import SyncRegistryClient, open_client
from registry.cli.output.terminal_safe import escape_terminal

# The completion timeout includes name resolution and imports.
_CALL_TIMEOUT_S, _COMPLETION_TIMEOUT_S = 1.0, 2.0
_MAX_AGENTS = 10_000
_MAX_COMPLETIONS = 1000


def complete_agents(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the id of an agent."""
    return _complete_names(ctx, incomplete, lambda registry: _agent_field_values(registry, "id"))


def complete_namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a namespace that contains agents."""
    return _complete_names(ctx, incomplete, lambda registry: _agent_field_values(registry, "namespace"))


def complete_capabilities(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a capability of any agent."""
    return _complete_names(ctx, incomplete, _capability_names)


def _complete_names(
    ctx: click.Context, incomplete: str, fetch_names: Callable[[SyncRegistryClient], Iterable[str]]
) -> list[str]:
    from mcp_mesh_client import ClientError

    # Name resolution that hangs cannot be cancelled, but the process can end.
    previous_handler = signal.signal(signal.SIGALRM, _exit_on_alarm)
    signal.setitimer(signal.ITIMER_REAL, _COMPLETION_TIMEOUT_S)
    try:
        with open_client(
            ctx.params["url"], ctx.params["token"], _CALL_TIMEOUT_S, max_rounds=1, attempt_timeout=_CALL_TIMEOUT_S
        ) as registry:
            names = sorted(
                {
                    name
                    for name in fetch_names(registry)
                    if name.startswith(incomplete) and name == escape_terminal(name)
                }
            )
    except (ClientError, KeyError, TypeError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
    return names[:_MAX_COMPLETIONS]


def _exit_on_alarm(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _agent_field_values(registry: SyncRegistryClient, field: str) -> Iterable[str]:
    response: Any = registry.agents(fields=field, limit=_MAX_AGENTS, resource_version="0")
    return (agent[field] for agent in response["agents"])


def _capability_names(registry: SyncRegistryClient) -> Iterable[str]:
    response: Any = registry.capabilities(resource_version="0")
    return (row["name"] for row in response["capabilities"])
