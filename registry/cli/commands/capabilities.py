"""`mcp-mesh-registry capabilities`: what can be done in the mesh, and by whom."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.filters import STABILITY_CHOICE, STATUS_CHOICE, drop_unset
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import PROVIDER_COLUMNS, Table
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient


@click.command(cls=RegistryCommand)
@click.argument("name", required=False, shell_complete=complete_capabilities)
@click.option("--query", "-q", "q", help="In names, tags or descriptions, forgivingly, best first.")
@click.option("--description", "description_contains", help="This text is in the description.")
@click.option("--category", help="Exactly this category.")
@click.option("--tag", "tags", multiple=True, help="It has it; several: all.")
@click.option("--stability", type=STABILITY_CHOICE, help="Exactly this one.")
@click.option("--version-constraint", help="Such as '>=1.2,<2'.")
@click.option("--fuzzy", "fuzzy_match", is_flag=True, default=None, help="Names nearly like NAME, best first.")
@click.option("--include-deprecated", is_flag=True, default=None, help="Deprecated ones, too.")
@click.option(
    "--namespace", "-n", "agent_namespace", shell_complete=complete_namespaces, help="Of agents in this namespace."
)
@click.option("--status", "agent_status", type=STATUS_CHOICE, help="Of agents with this status.")
@click.option("--draining/--in-service", "agent_draining", default=None, help="Of agents that drain, or of the others.")
@click.option("--agent", "agent_id", shell_complete=complete_agents, help="Of this agent.")
@output_option()
@with_registry_client
def capabilities(registry: "SyncRegistryClient", *, output: str | None, **filters: Any) -> None:
    """Search what agents in service can do: a row for each capability of each agent."""
    asked: Any = drop_unset({**filters, "tags": ",".join(filters["tags"]) or None})
    answer = unwrap(registry.capabilities(**asked))
    if is_document(output):
        print_document(answer, output)
    elif output == "name":
        for name in dict.fromkeys(row["name"] for row in answer["capabilities"]):
            click.echo(escape_terminal(name))
    elif answer["capabilities"]:
        Table(PROVIDER_COLUMNS, wide=output == "wide").show(answer["capabilities"])
    else:
        click.echo("No capabilities found", err=True)
