"""`mcp-mesh-registry resolve`: whom a dependency would get, and why."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from registry.cli.commands.agents import given
from registry.cli.commands.capabilities import PROVIDERS
from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import calls_registry
from registry.cli.errors import NotThere, RemoteCommand, reason_of, refused, success
from registry.cli.output.formats import check_format, is_document, output_option, show_document
from registry.cli.output.tables import STATUSES, Column, Row, Table
from registry.cli.output.terminal_safe import harmless
from registry.cli.output.wires import NEEDS, needs

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

_STRATEGIES = ("best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local")

_SELECTED = (
    Column("AGENT", lambda row: row["agent_id"]),
    Column("TOOL", lambda row: row["tool_name"]),
    Column("VERSION", lambda row: row["version"]),
    Column("ENDPOINT", lambda row: row["endpoint"]),
    Column("OF", lambda row: row["candidates"]),
)
_CANDIDATES = (
    Column("FUNCTION", lambda row: row["function"]),
    Column("NEEDS", lambda row: row["capability"]),
    Column("CANDIDATE", lambda row: row.get("agent_id")),
    Column("VERSION", lambda row: row.get("version")),
    Column("STATUS", lambda row: row.get("status"), styles=STATUSES),
    Column("STAGE", lambda row: row.get("stage")),
    Column("REASON", lambda row: row.get("reason")),
)


@click.command(cls=RemoteCommand)
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
@calls_registry
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
    check_format(output)
    chosen: Any = given(choice)
    if (capability is None) == (agent_id is None):
        raise click.UsageError("Give a CAPABILITY, or --agent ID")
    if agent_id is not None:
        if chosen:
            raise click.UsageError("An agent's dependencies say themselves how to choose; give --agent alone")
        _agent(registry, agent_id, output, explain=explain)
    elif capability is not None:
        _capability(registry, capability, chosen, output, explain=explain)


def _capability(
    registry: "SyncRegistryClient", capability: str, choice: Any, output: str | None, *, explain: bool
) -> None:
    answer = registry.select_agent(capability, **choice)
    if "error" in answer and not (explain and answer["error"] == "no_provider"):
        raise refused(answer)
    if "error" not in answer:
        if is_document(output):
            show_document(success(answer), output)
        elif output == "name":
            click.echo(harmless(success(answer)["agent_id"]))
        else:
            Table(_SELECTED).show([success(answer)])
    if explain and output is None:
        there = success(registry.capabilities(name=capability, agent_status="any", include_deprecated=True))
        click.echo(f"\nWho has it:{'' if there['capabilities'] else '   -'}")
        if there["capabilities"]:
            Table(PROVIDERS, indent="  ").show(there["capabilities"])
    if "error" in answer:
        raise NotThere(reason_of(answer))


def _agent(registry: "SyncRegistryClient", agent_id: str, output: str | None, *, explain: bool) -> None:
    answer = success(registry.dependencies(agent_id, explain=explain))
    rows = list(needs(answer))
    missing = [row for row in rows if row.get("agent_id") is None]
    if is_document(output):
        show_document(answer, output)
    elif output == "name":
        for provider in dict.fromkeys(row["agent_id"] for row in rows if row not in missing):
            click.echo(harmless(provider))
    elif rows:
        Table(NEEDS).show(rows)
        if explain:
            click.echo()
            Table(_CANDIDATES).show(_candidates(answer.get("explanation") or {}))
    else:
        click.echo(f"Agent {harmless(agent_id)} depends on nothing", err=True)
    if missing:
        first = missing[0]
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotThere(f"Nobody for {first['capability']}, which {first['function']} needs: {first['reason']}{more}")


def _candidates(explanation: Mapping[str, Any]) -> Iterator[Row]:
    for function, dependencies in explanation.items():
        for need in dependencies:
            named = {"function": function, "capability": need["capability"]}
            yield from ({**named, **candidate} for candidate in need["candidates"])
            if not need["candidates"]:
                yield {**named, "reason": need["reason"]}
