"""The command `mcp-mesh-registry capabilities`, which searches the capabilities of agents."""

from typing import Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import SyncRegistryClient, with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.filters import STABILITY_CHOICE, STATUS_CHOICE, drop_unset
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import PROVIDER_COLUMNS, Table
from registry.cli.output.terminal_safe import escape_terminal


@click.command(cls=RegistryCommand)
@click.argument("name", required=False, shell_complete=complete_capabilities)
@click.option("--query", "-q", "q", help="Search names, tags and descriptions approximately, best match first.")
@click.option("--description", "description_contains", help="Text contained in the description.")
@click.option("--category", help="Only this category.")
@click.option("--tag", "tags", multiple=True, help="Require this tag; repeat to require several.")
@click.option("--stability", type=STABILITY_CHOICE, help="Only this stability.")
@click.option("--version-constraint", help="Version of the capability, such as '>=1.2,<2'.")
@click.option("--fuzzy", "fuzzy_match", is_flag=True, default=None, help="Match NAME approximately, best match first.")
@click.option("--include-deprecated", is_flag=True, default=None, help="Include deprecated capabilities.")
@click.option(
    "--namespace", "-n", "agent_namespace", shell_complete=complete_namespaces, help="Only agents in this namespace."
)
@click.option("--status", "agent_status", type=STATUS_CHOICE, help="Only agents with this status.")
@click.option(
    "--draining/--in-service", "agent_draining", default=None, help="Only draining agents, or only agents in service."
)
@click.option("--agent", "agent_id", shell_complete=complete_agents, help="Only this agent.")
@output_option()
@with_registry_client
def capabilities(registry: SyncRegistryClient, *, output: str | None, **filters: Any) -> None:
    """Search capabilities of agents in service: one row per capability and agent."""
    query: Any = drop_unset({**filters, "tags": ",".join(filters["tags"]) or None})
    response = unwrap(registry.capabilities(**query))
    if is_document(output):
        print_document(response, output)
    elif output == "name":
        for name in dict.fromkeys(row["name"] for row in response["capabilities"]):
            click.echo(escape_terminal(name))
    elif response["capabilities"]:
        Table(PROVIDER_COLUMNS, wide=output == "wide").show(response["capabilities"])
    else:
        click.echo("No capabilities found", err=True)
