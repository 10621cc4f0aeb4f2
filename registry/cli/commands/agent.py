"""`mcp-mesh-registry agent`: all there is to know of one agent."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.follow import follow
from registry.cli.output.ages import format_age
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import (
    DEPENDENCY_COLUMNS,
    Column,
    Row,
    Table,
    dependency_rows,
    format_names,
    format_pairs,
    format_status,
    print_fields,
)
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import AgentHealth, SyncRegistryClient

_CAPABILITY_COLUMNS = (
    Column("NAME", lambda row: row.get("name")),
    Column("VERSION", lambda row: row.get("version")),
    Column("STABILITY", lambda row: row.get("stability")),
    Column("TAGS", lambda row: format_names(row.get("tags"))),
    Column("FUNCTION", lambda row: row.get("function_name")),
    Column("DESCRIPTION", lambda row: row.get("description")),
)
_DEPENDENT_COLUMNS = (
    Column("AGENT", lambda row: row["agent_id"]),
    Column("FUNCTION", lambda row: row["function"]),
    Column("CAPABILITY", lambda row: row["capability"]),
    Column("WITHOUT THIS ONE", lambda row: "breaks" if row["breaks"] else f"{row['alternatives']} others would do"),
)


@click.command(cls=RegistryCommand)
@click.argument("agent_id", metavar="ID", shell_complete=complete_agents)
@click.option("--watch", "-w", is_flag=True, help="One line, and another for each change, until Ctrl-C.")
@output_option()
@with_registry_client
def agent(registry: "SyncRegistryClient", *, agent_id: str, watch: bool, output: str | None) -> None:
    """Show one agent: what it says of itself, how it is, what it needs, and who needs it."""
    found: Any = unwrap(registry.agent(agent_id))
    if watch:
        follow(registry, {"agent_id": agent_id}, output, initial=True, event_column=False)
    elif is_document(output):
        print_document(found, output)
    elif output == "name":
        click.echo(escape_terminal(found["id"]))
    else:
        health = unwrap(registry.agent_health(agent_id))
        wires = unwrap(registry.dependencies(agent_id))
        dependents = unwrap(registry.dependents(agent_id))["dependents"]
        print_fields(
            {
                **_registration_fields(found),
                **_liveness_fields(found, health),
                "Resource version": found["resource_version"],
            }
        )
        _print_section("Capabilities", _CAPABILITY_COLUMNS, found["capabilities"])
        _print_section("Dependencies", DEPENDENCY_COLUMNS, dependency_rows(wires))
        _print_section("Dependents", _DEPENDENT_COLUMNS, dependents)


def _registration_fields(document: Mapping[str, Any]) -> dict[str, object]:
    """Return what an agent says of itself, by what it is called here."""
    metadata = document.get("metadata") or {}
    return {
        "Id": document["id"],
        "Name": document["name"],
        "Namespace": document["namespace"],
        "Type": document["agent_type"],
        "Endpoint": document["endpoint"],
        "Labels": format_pairs(document["labels"]),
        "Annotations": format_pairs(document["annotations"]),
        "Metadata": format_pairs(
            {name: value for name, value in metadata.items() if name not in ("endpoint", "tools")}
        ),
        "Security context": document.get("security_context"),
    }


def _liveness_fields(document: Mapping[str, Any], health: "AgentHealth") -> dict[str, object]:
    """Return how an agent is and was."""
    silence, heartbeat = health["time_since_heartbeat"], document["last_heartbeat"]
    if silence is not None:
        heartbeat = f"{heartbeat} ({format_age(silence)} ago); the next by {health['next_heartbeat_expected']}"
    degraded, expired = health["timeout_threshold"], health["eviction_threshold"]
    return {
        "Status": f"{format_status(document)} ({health['message']})",
        "Heartbeat": heartbeat,
        "Silence": f"degraded after {degraded:g} s, expired after {expired:g} s",
        "Registered": document["created_at"],
        "Changed": document["updated_at"],
    }


def _print_section(title: str, columns: Iterable[Column], rows: Iterable[Row]) -> None:
    """Write a table under its title, or that there is nothing."""
    there = list(rows)
    click.echo(f"\n{title}:{'' if there else '   -'}")
    if there:
        Table(list(columns), indent="  ").show(there)
