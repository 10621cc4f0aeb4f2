"""What the shell completes: names from the registry, where it answers at once; else nothing, and quietly."""

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from registry.cli.connection import connected
from registry.cli.output.terminal_safe import harmless

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

# Seconds: one call, and all of it, name service and imports included.
_CALL, _ALL = 1.0, 2.0
_MOST = 10_000
_SHOWN = 1000


def complete_agents(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the id of an agent."""
    return _complete(ctx, incomplete, lambda registry: _fields(registry, "id"))


def complete_namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a namespace that has agents."""
    return _complete(ctx, incomplete, lambda registry: _fields(registry, "namespace"))


def complete_capabilities(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a capability that somebody has."""
    return _complete(ctx, incomplete, _capabilities)


def _complete(ctx: click.Context, incomplete: str, names: "Callable[[SyncRegistryClient], Iterable[str]]") -> list[str]:
    from mcp_mesh_client import ClientError

    # A name service that hangs cannot be cancelled; the process that completes can.
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, _ALL)
    try:
        with connected(ctx.params["url"], ctx.params["token"], _CALL, tries=1, try_timeout=_CALL) as registry:
            found = sorted({name for name in names(registry) if name.startswith(incomplete) and name == harmless(name)})
    except (ClientError, KeyError, TypeError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return found[:_SHOWN]


def _give_up(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _fields(registry: "SyncRegistryClient", field: str) -> Iterable[str]:
    answer: Any = registry.agents(fields=field, limit=_MOST, resource_version="0")
    return (agent[field] for agent in answer["agents"])


def _capabilities(registry: "SyncRegistryClient") -> Iterable[str]:
    answer: Any = registry.capabilities(resource_version="0")
    return (row["name"] for row in answer["capabilities"])
