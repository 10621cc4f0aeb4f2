"""The command `mcp-mesh-registry end-self-preservation`, after which overdue agents expire again."""

import click

from registry.cli.connection import SyncRegistryClient, with_registry_client
from registry.cli.errors import RegistryWriteCommand, unwrap
from registry.cli.output.terminal_safe import escape_terminal


@click.command("end-self-preservation", cls=RegistryWriteCommand)
@click.option("--namespace", help="Only of this namespace, or * for the whole mesh; default: all.")
@with_registry_client
def end_self_preservation(registry: SyncRegistryClient, *, namespace: str | None) -> None:
    """End self-preservation on all replicas: overdue agents expire again.

    The exit code is 0 whether self-preservation was active or not; the output says which.
    """
    click.echo(escape_terminal(unwrap(registry.end_self_preservation(namespace))["message"]))
