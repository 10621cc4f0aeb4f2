"""`mcp-mesh-registry agents`: list the agents that match."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.filters import drop_unset, with_agent_filter_options
from registry.cli.follow import follow
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import agent_rows, agent_table
from registry.cli.output.terminal_safe import escape_terminal
from registry.cli.paging import PAGE_SIZE, list_all_agents

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient


@click.command(cls=RegistryCommand)
@with_agent_filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), help="At most so many; tells how to go on.")
@click.option("--continue", "continue_", help="Go on after the page that told this.")
@click.option("--watch", "-w", is_flag=True, help="Then go on with what changes, until Ctrl-C.")
@output_option()
@with_registry_client
def agents(
    registry: "SyncRegistryClient",
    *,
    limit: int | None,
    continue_: str | None,
    watch: bool,
    output: str | None,
    **filters: Any,
) -> None:
    """List the agents that match all that is asked."""
    asked: Any = drop_unset(filters)
    if watch:
        if limit is not None or continue_ is not None:
            raise click.UsageError("--limit and --continue do not go with --watch")
        follow(registry, asked, output, initial=True, event_column=False)
        return
    if limit is None and continue_ is None:
        answer = list_all_agents(registry, asked)
    else:
        answer = unwrap(registry.agents(**asked, limit=limit or PAGE_SIZE, **drop_unset({"continue_": continue_})))
    if is_document(output):
        print_document(answer, output)
    elif output == "name":
        for agent in answer["agents"]:
            click.echo(escape_terminal(agent["id"]))
    elif answer["agents"]:
        agent_table(wide=output == "wide").show(agent_rows(answer["agents"], answer["timestamp"]))
    else:
        click.echo("No agents found", err=True)
    if (token := answer.get("continue")) and not is_document(output):
        click.echo(f"There are more: --continue {escape_terminal(token)}", err=True)
