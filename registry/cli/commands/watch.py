"""`mcp-mesh-registry watch`: print the changes of agents."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand
from registry.cli.filters import drop_unset, with_agent_filter_options
from registry.cli.follow import follow
from registry.cli.output.formats import output_option

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient


@click.command(cls=RegistryCommand)
@with_agent_filter_options
@click.option("--initial", is_flag=True, help="Begin with the agents that are there, as ADDED.")
@click.option("--since", "version", metavar="VERSION", help="Begin after this resource version.")
@output_option()
@with_registry_client
def watch(
    registry: "SyncRegistryClient", *, initial: bool, version: str | None, output: str | None, **filters: Any
) -> None:
    """Write each change of the agents that match: ADDED, MODIFIED or DELETED, until Ctrl-C.

    It goes on by itself where a replica or the whole registry goes away and comes back, and misses nothing.
    """
    if initial and version is not None:
        raise click.UsageError("--initial and --since exclude each other")
    asked: Any = drop_unset(filters)
    follow(registry, asked, output, initial=initial, event_column=True, version=version)
