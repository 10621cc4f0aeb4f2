"""Prints agents and their changes until the command is interrupted."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from registry.cli.connection import report_connection_state
from registry.cli.errors import unwrap
from registry.cli.output.formats import is_document, print_event
from registry.cli.output.tables import agent_table, event_row
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient, SyncWatch, WatchEvent, WatchFilters


def follow(
    registry: "SyncRegistryClient",
    filters: "WatchFilters",
    output: str | None,
    *,
    initial: bool,
    event_column: bool,
    version: str | None = None,
) -> None:
    """Print each change of matching agents until Ctrl-C; with `initial` first print the matching agents.

    `event_column` adds the kind of change to a table. An error of the first call is raised; later outages are reported
    on standard error, and the watch reconnects.
    """
    # A watch would wait for an unreachable registry; this call makes the command fail at once instead.
    unwrap(registry.agents(**filters, limit=1))
    with (
        report_connection_state(),
        registry.watch(send_initial=initial, bookmarks=True, resource_version=version, **filters) as watch,
    ):
        if is_document(output) or output == "name":
            for event in _without_bookmarks(watch):
                _print_event(event, output)
            return
        table = agent_table(wide=output == "wide", follow=True, event_column=event_column)
        initial_events = list(_initial_events(watch)) if initial else []
        initial_events.sort(key=lambda event: (str(event["object"].get("namespace")), str(event["object"].get("id"))))
        table.show(map(event_row, initial_events))
        for event in _without_bookmarks(watch):
            table.add(event_row(event))


def _initial_events(watch: "SyncWatch") -> Iterator["WatchEvent"]:
    """Yield the events of the initial state of a watch, up to the bookmark at its end."""
    for event in watch:
        if event["type"] == "BOOKMARK":
            return
        yield event


def _without_bookmarks(watch: "SyncWatch") -> Iterator["WatchEvent"]:
    return (event for event in watch if event["type"] != "BOOKMARK")


def _print_event(event: "WatchEvent", output: str | None) -> None:
    if output == "name":
        click.echo(escape_terminal(str(event["object"].get("id"))))
    else:
        print_event(event, output)
