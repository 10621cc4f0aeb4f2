"""The command `mcp-mesh-registry agents`, which lists agents."""

from typing import TYPE_CHECKING, Any

import click

from registry.cli.connection import SyncRegistryClient, with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.filters import drop_unset, with_agent_filter_options
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import agent_rows, agent_table
from registry.cli.output.terminal_safe import escape_terminal
from registry.cli.watch_output import follow

if TYPE_CHECKING:
    from mcp_mesh_client import AgentList, WatchFilters

PAGE_SIZE = 500


@click.command(cls=RegistryCommand)
@with_agent_filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), help="Page size; prints the token of the next page.")
@click.option("--continue", "continue_", help="Continue after the page that printed this token.")
@click.option("--watch", "-w", is_flag=True, help="Print changes after the list, until Ctrl-C.")
@output_option()
@with_registry_client
def agents(
    registry: SyncRegistryClient,
    *,
    limit: int | None,
    continue_: str | None,
    watch: bool,
    output: str | None,
    **filters: Any,
) -> None:
    """List agents that match all filters."""
    query: Any = drop_unset(filters)
    if watch:
        if limit is not None or continue_ is not None:
            raise click.UsageError("--limit and --continue cannot be combined with --watch")
        follow(registry, query, output, initial=True, event_column=False)
        return
    if limit is None and continue_ is None:
        response = _list_all_agents(registry, query)
    else:
        response = unwrap(registry.agents(**query, limit=limit or PAGE_SIZE, **drop_unset({"continue_": continue_})))
    if is_document(output):
        print_document(response, output)
    elif output == "name":
        for agent in response["agents"]:
            click.echo(escape_terminal(agent["id"]))
    elif response["agents"]:
        agent_table(wide=output == "wide").show(agent_rows(response["agents"], response["timestamp"]))
    else:
        click.echo("No agents found", err=True)
    if (token := response.get("continue")) and not is_document(output):
        click.echo(f"More agents: --continue {escape_terminal(token)}", err=True)


def _list_all_agents(registry: SyncRegistryClient, filters: "WatchFilters") -> "AgentList":
    """Return all matching agents as one response, at the version of the first page."""
    first = unwrap(registry.agents(**filters, limit=PAGE_SIZE))
    agents, token = first["agents"], first.get("continue")
    # If the first page came from the cache of a replica without Redis, the other pages must accept its cache, too.
    cache_only: Any = {"resource_version": "0"} if "stale_seconds" in first else {}
    while token is not None:
        page: Any = registry.agents(**filters, **cache_only, limit=PAGE_SIZE, continue_=token)
        if page.get("error") in ("version_too_old", "version_ahead"):
            # The version of the first page is no longer available; one unpaged response has one version, too.
            return unwrap(registry.agents(**filters))
        agents += unwrap(page)["agents"]
        token = page.get("continue")
    response: Any = {name: value for name, value in first.items() if name != "continue"}
    response |= {"agents": agents, "count": len(agents)}
    agent_list: AgentList = response
    return agent_list
