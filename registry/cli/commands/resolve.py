"""The command `mcp-mesh-registry resolve`, which shows the provider of a dependency and why it is chosen."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import SyncRegistryClient, with_registry_client
from registry.cli.errors import NotFound, RegistryCommand, error_from_response, format_error_response, unwrap
from registry.cli.filters import drop_unset
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import (
    DEPENDENCY_COLUMNS,
    PROVIDER_COLUMNS,
    STATUS_STYLES,
    Column,
    Row,
    Table,
    dependency_rows,
    print_section,
)
from registry.cli.output.terminal_safe import escape_terminal

_STRATEGIES = ("best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local")

_SELECTION_COLUMNS = (
    Column("AGENT", lambda row: row["agent_id"]),
    Column("TOOL", lambda row: row["tool_name"]),
    Column("VERSION", lambda row: row["version"]),
    Column("ENDPOINT", lambda row: row["endpoint"]),
    Column("CANDIDATES", lambda row: row["candidates"]),
)
_CANDIDATE_COLUMNS = (
    Column("FUNCTION", lambda row: row["function"]),
    Column("DEPENDENCY", lambda row: row["capability"]),
    Column("CANDIDATE", lambda row: row.get("agent_id")),
    Column("VERSION", lambda row: row.get("version")),
    Column("STATUS", lambda row: row.get("status"), styles=STATUS_STYLES),
    Column("STAGE", lambda row: row.get("stage")),
    Column("REASON", lambda row: row.get("reason")),
)


@click.command(cls=RegistryCommand)
@click.argument("capability", required=False, shell_complete=complete_capabilities)
@click.option(
    "--agent", "agent_id", shell_complete=complete_agents, help="Resolve all dependencies of this agent instead."
)
@click.option("--version-constraint", "--version", help="Version of the capability, such as '>=1.2,<2'.")
@click.option("--tag", "tags", multiple=True, help="Required tag; +TAG is preferred, -TAG excluded.")
@click.option("--namespace", "-n", shell_complete=complete_namespaces, help="Only this namespace; default is any.")
@click.option("--strategy", type=click.Choice(_STRATEGIES), help="How to choose among matching providers.")
@click.option("--key", help="Key for the strategy sticky.")
@click.option("--zone", help="Zone for the strategy local.")
@click.option("--explain", is_flag=True, help="Also print every candidate.")
@output_option("json", "yaml", "name")
@with_registry_client
def resolve(
    registry: SyncRegistryClient,
    *,
    capability: str | None,
    agent_id: str | None,
    explain: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Show the provider a dependency on CAPABILITY resolves to, or all dependencies of an agent.

    The exit code is 3 if one is unresolved.
    """
    select_options: Any = drop_unset(options)
    if (capability is None) == (agent_id is None):
        raise click.UsageError("Give a CAPABILITY, or --agent ID")
    if agent_id is not None:
        if select_options:
            raise click.UsageError("--agent cannot be combined with selection options")
        _resolve_agent(registry, agent_id, output, explain=explain)
    elif capability is not None:
        _resolve_capability(registry, capability, select_options, output, explain=explain)


def _resolve_capability(
    registry: SyncRegistryClient, capability: str, select_options: Any, output: str | None, *, explain: bool
) -> None:
    response = registry.select_agent(capability, **select_options)
    if "error" in response and not (explain and response["error"] == "no_provider"):
        raise error_from_response(response)
    if "error" not in response:
        if is_document(output):
            print_document(unwrap(response), output)
        elif output == "name":
            click.echo(escape_terminal(unwrap(response)["agent_id"]))
        else:
            Table(_SELECTION_COLUMNS).show([unwrap(response)])
    if explain and output is None:
        providers = unwrap(registry.capabilities(name=capability, agent_status="any", include_deprecated=True))
        print_section("All providers", PROVIDER_COLUMNS, providers["capabilities"])
    if "error" in response:
        raise NotFound(format_error_response(response))


def _resolve_agent(registry: SyncRegistryClient, agent_id: str, output: str | None, *, explain: bool) -> None:
    response = unwrap(registry.dependencies(agent_id, explain=explain))
    rows = list(dependency_rows(response))
    unresolved = [row for row in rows if row.get("agent_id") is None]
    if is_document(output):
        print_document(response, output)
    elif output == "name":
        for provider in dict.fromkeys(row["agent_id"] for row in rows if row not in unresolved):
            click.echo(escape_terminal(provider))
    elif rows:
        Table(DEPENDENCY_COLUMNS).show(rows)
        if explain:
            click.echo()
            Table(_CANDIDATE_COLUMNS).show(_candidate_rows(response.get("explanation") or {}))
    else:
        click.echo(f"Agent {escape_terminal(agent_id)} has no dependencies", err=True)
    if unresolved:
        first = unresolved[0]
        more = f", and {len(unresolved) - 1} more" if len(unresolved) > 1 else ""
        raise NotFound(
            f"No provider for {first['capability']}, required by {first['function']}: {first['reason']}{more}"
        )


def _candidate_rows(explanation: Mapping[str, Any]) -> Iterator[Row]:
    for function, dependencies in explanation.items():
        for dependency in dependencies:
            columns = {"function": function, "capability": dependency["capability"]}
            yield from ({**columns, **candidate} for candidate in dependency["candidates"])
            if not dependency["candidates"]:
                yield {**columns, "reason": dependency["reason"]}
