"""`mcp-mesh-registry resolve`: whom a dependency would get, and why."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import with_registry_client
from registry.cli.errors import NotFound, RegistryCommand, format_refusal, to_refusal_error, unwrap
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
)
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

_STRATEGIES = ("best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local")

_SELECTION_COLUMNS = (
    Column("AGENT", lambda row: row["agent_id"]),
    Column("TOOL", lambda row: row["tool_name"]),
    Column("VERSION", lambda row: row["version"]),
    Column("ENDPOINT", lambda row: row["endpoint"]),
    Column("OF", lambda row: row["candidates"]),
)
_CANDIDATE_COLUMNS = (
    Column("FUNCTION", lambda row: row["function"]),
    Column("NEEDS", lambda row: row["capability"]),
    Column("CANDIDATE", lambda row: row.get("agent_id")),
    Column("VERSION", lambda row: row.get("version")),
    Column("STATUS", lambda row: row.get("status"), styles=STATUS_STYLES),
    Column("STAGE", lambda row: row.get("stage")),
    Column("REASON", lambda row: row.get("reason")),
)


@click.command(cls=RegistryCommand)
@click.argument("capability", required=False, shell_complete=complete_capabilities)
@click.option("--agent", "agent_id", shell_complete=complete_agents, help="Instead: all that this agent depends on.")
@click.option("--version-constraint", "--version", help="Such as '>=1.2,<2'.")
@click.option("--tag", "tags", multiple=True, help="It must have it; +TAG: better with, -TAG: never with.")
@click.option("--namespace", "-n", shell_complete=complete_namespaces, help="In this one; any unless given.")
@click.option("--strategy", type=click.Choice(_STRATEGIES), help="How to choose among those that will do.")
@click.option("--key", help="The key of sticky.")
@click.option("--zone", help="The zone of local.")
@click.option("--explain", is_flag=True, help="Also everybody who was looked at.")
@output_option("json", "yaml", "name")
@with_registry_client
def resolve(
    registry: "SyncRegistryClient",
    *,
    capability: str | None,
    agent_id: str | None,
    explain: bool,
    output: str | None,
    **choice: Any,
) -> None:
    """Show which agent a dependency on CAPABILITY would get, or all dependencies of an agent.

    The exit code is 3 where somebody is missing.
    """
    chosen: Any = drop_unset(choice)
    if (capability is None) == (agent_id is None):
        raise click.UsageError("Give a CAPABILITY, or --agent ID")
    if agent_id is not None:
        if chosen:
            raise click.UsageError("An agent's dependencies say themselves how to choose; give --agent alone")
        _resolve_agent(registry, agent_id, output, explain=explain)
    elif capability is not None:
        _resolve_capability(registry, capability, chosen, output, explain=explain)


def _resolve_capability(
    registry: "SyncRegistryClient", capability: str, select_options: Any, output: str | None, *, explain: bool
) -> None:
    answer = registry.select_agent(capability, **select_options)
    if "error" in answer and not (explain and answer["error"] == "no_provider"):
        raise to_refusal_error(answer)
    if "error" not in answer:
        if is_document(output):
            print_document(unwrap(answer), output)
        elif output == "name":
            click.echo(escape_terminal(unwrap(answer)["agent_id"]))
        else:
            Table(_SELECTION_COLUMNS).show([unwrap(answer)])
    if explain and output is None:
        there = unwrap(registry.capabilities(name=capability, agent_status="any", include_deprecated=True))
        click.echo(f"\nWho has it:{'' if there['capabilities'] else '   -'}")
        if there["capabilities"]:
            Table(PROVIDER_COLUMNS, indent="  ").show(there["capabilities"])
    if "error" in answer:
        raise NotFound(format_refusal(answer))


def _resolve_agent(registry: "SyncRegistryClient", agent_id: str, output: str | None, *, explain: bool) -> None:
    answer = unwrap(registry.dependencies(agent_id, explain=explain))
    rows = list(dependency_rows(answer))
    missing = [row for row in rows if row.get("agent_id") is None]
    if is_document(output):
        print_document(answer, output)
    elif output == "name":
        for provider in dict.fromkeys(row["agent_id"] for row in rows if row not in missing):
            click.echo(escape_terminal(provider))
    elif rows:
        Table(DEPENDENCY_COLUMNS).show(rows)
        if explain:
            click.echo()
            Table(_CANDIDATE_COLUMNS).show(_candidate_rows(answer.get("explanation") or {}))
    else:
        click.echo(f"Agent {escape_terminal(agent_id)} depends on nothing", err=True)
    if missing:
        first = missing[0]
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotFound(f"Nobody for {first['capability']}, which {first['function']} needs: {first['reason']}{more}")


def _candidate_rows(explanation: Mapping[str, Any]) -> Iterator[Row]:
    for function, dependencies in explanation.items():
        for need in dependencies:
            named = {"function": function, "capability": need["capability"]}
            yield from ({**named, **candidate} for candidate in need["candidates"])
            if not need["candidates"]:
                yield {**named, "reason": need["reason"]}
