"""`mcp-mesh-registry agents` and `watch`: who is there, and what changes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.follow import follow
from registry.cli.output.formats import is_document, output_option, print_document, require_format_support
from registry.cli.output.tables import agent_rows, agent_table
from registry.cli.output.terminal_safe import escape_terminal
from registry.cli.paging import PAGE_SIZE, list_all_agents

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

Command = Callable[..., Any]

STATUS_CHOICE = click.Choice(("pending", "healthy", "degraded", "expired", "unhealthy", "offline", "any"))
STABILITY_CHOICE = click.Choice(("alpha", "beta", "experimental", "stable", "deprecated"))

# Options by the names of the API's filters, which they are given under.
_FILTER_OPTIONS = (
    click.option("--namespace", "-n", shell_complete=complete_namespaces, help="Of this namespace alone."),
    click.option("--selector", "-l", "label_selector", help="Whose labels match, such as env=prod,tier!=free."),
    click.option("--status", type=STATUS_CHOICE, help="With this status; unhealthy is degraded or expired."),
    click.option(
        "--capability", "-c", multiple=True, shell_complete=complete_capabilities, help="That have it; several: all."
    ),
    click.option("--match", type=click.Choice(("all", "any")), help="any: one of several capabilities is enough."),
    click.option("--version-constraint", help="Of the capability, such as '>=1.2,<2'."),
    click.option("--tag", "capability_tags", multiple=True, help="The capability has it; several: all."),
    click.option("--category", "capability_category", help="Of the capability."),
    click.option("--stability", "capability_stability", type=STABILITY_CHOICE, help="Of the capability."),
    click.option("--fuzzy", "fuzzy_match", is_flag=True, default=None, help="Names nearly as asked, best first."),
    click.option("--draining/--in-service", default=None, help="Only agents that drain, or only the others."),
    click.option("--id", "agent_id", shell_complete=complete_agents, help="This agent alone."),
)


def _with_filter_options(command: Command) -> Command:
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


@click.command(cls=RegistryCommand)
@_with_filter_options
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
    require_format_support(output)
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


@click.command(cls=RegistryCommand)
@_with_filter_options
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


def drop_unset(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value not in (None, ())}
