"""Following the mesh until somebody has seen enough: the list, if wanted, and what changes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from registry.cli.connection import told_of_trouble
from registry.cli.errors import success
from registry.cli.output.agent_tables import agent_table, changed
from registry.cli.output.formats import check_format, is_document, show_event
from registry.cli.output.terminal_safe import harmless

if TYPE_CHECKING:
    from mcp_mesh_client import Event, SyncRegistryClient, SyncWatch, WatchFilters


def follow(
    registry: "SyncRegistryClient",
    filters: "WatchFilters",
    output: str | None,
    *,
    initial: bool,
    events: bool,
    version: str | None = None,
) -> None:
    """Write the agents that match, if `initial`, and each change of them from then or from a version on; for ever.

    A table has `events` in a column. What a first call would raise is raised; later trouble is told, and survived.
    """
    check_format(output)
    # A watch waits for a registry to come; who types does not.
    success(registry.agents(**filters, limit=1))
    with (
        told_of_trouble(),
        registry.watch(send_initial=initial, bookmarks=True, resource_version=version, **filters) as watch,
    ):
        if is_document(output) or output == "name":
            for event in _changes(watch):
                _show(event, output)
            return
        table = agent_table(wide=output == "wide", follows=True, events=events)
        state = sorted(_state(watch), key=_place) if initial else []
        table.show(map(changed, state))
        for event in _changes(watch):
            table.add(changed(event))


def _place(event: "Event") -> tuple[str, str]:
    """Return where an agent stands in a list."""
    return str(event["object"].get("namespace")), str(event["object"].get("id"))


def _state(watch: "SyncWatch") -> Iterator["Event"]:
    """Give the events that tell the state, up to the bookmark at their end."""
    for event in watch:
        if event["type"] == "BOOKMARK":
            return
        yield event


def _changes(watch: "SyncWatch") -> Iterator["Event"]:
    return (event for event in watch if event["type"] != "BOOKMARK")


def _show(event: "Event", output: str | None) -> None:
    if output == "name":
        click.echo(harmless(str(event["object"].get("id"))))
    else:
        show_event(event, output)
