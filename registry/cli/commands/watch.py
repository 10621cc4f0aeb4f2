"""The command `mcp-mesh-registry watch`, which prints the changes of agents."""

from typing import Any

import click

from registry.cli.connection import SyncRegistryClient, with_registry_client
from registry.cli.errors import RegistryCommand
from registry.cli.filters import drop_unset, with_agent_filter_options
from registry.cli.output.formats import output_option
from registry.cli.watch_output import follow


@click.command(cls=RegistryCommand)
@with_agent_filter_options
@click.option("--initial", is_flag=True, help="Print existing agents first, as ADDED.")
@click.option("--since", "version", metavar="VERSION", help="Start after this resource version.")
@output_option()
@with_registry_client
def watch(
    registry: SyncRegistryClient, *, initial: bool, version: str | None, output: str | None, **filters: Any
) -> None:
    """Print each change of matching agents: ADDED, MODIFIED or DELETED, until Ctrl-C.

    Reconnects after an outage without losing changes.
    """
    if initial and version is not None:
        raise click.UsageError("--initial and --since cannot be combined")
    query: Any = drop_unset(filters)
    follow(registry, query, output, initial=initial, event_column=True, version=version)
