"""The command `mcp-mesh-registry agent`, which shows one agent in detail."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import with_registry_client
from registry.cli.errors import RegistryCommand, unwrap
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import (
    DEPENDENCY_COLUMNS,
    Column,
    dependency_rows,
    format_age,
    format_names,
    format_pairs,
    format_status,
    print_fields,
    print_section,
)
from registry.cli.output.terminal_safe import escape_terminal
from registry.cli.watch_output import follow

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
    Column("IF REMOVED", lambda row: "unresolved" if row["only_provider"] else f"{row['alternatives']} alternatives"),
)


@click.command(cls=RegistryCommand)
@click.argument("agent_id", metavar="ID", shell_complete=complete_agents)
@click.option("--watch", "-w", is_flag=True, help="Print one line now and one per change, until Ctrl-C.")
@output_option()
@with_registry_client
def agent(registry: "SyncRegistryClient", *, agent_id: str, watch: bool, output: str | None) -> None:
    """Show one agent: registration, status, dependencies and dependents."""
    response: Any = unwrap(registry.agent(agent_id))
    if watch:
        follow(registry, {"agent_id": agent_id}, output, initial=True, event_column=False)
    elif is_document(output):
        print_document(response, output)
    elif output == "name":
        click.echo(escape_terminal(response["id"]))
    else:
        health = unwrap(registry.agent_health(agent_id))
        dependencies = unwrap(registry.dependencies(agent_id))
        dependents = unwrap(registry.dependents(agent_id))["dependents"]
        print_fields(
            {
                **_registration_fields(response),
                **_liveness_fields(response, health),
                "Resource version": response["resource_version"],
            }
        )
        print_section("Capabilities", _CAPABILITY_COLUMNS, response["capabilities"])
        print_section("Dependencies", DEPENDENCY_COLUMNS, dependency_rows(dependencies))
        print_section("Dependents", _DEPENDENT_COLUMNS, dependents)


def _registration_fields(document: Mapping[str, Any]) -> dict[str, object]:
    """Return the registration of an agent by the field names of the output."""
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
    """Return the status, heartbeat and thresholds of an agent by the field names of the output."""
    age_s, heartbeat = health["time_since_heartbeat"], document["last_heartbeat"]
    if age_s is not None:
        heartbeat = f"{heartbeat} ({format_age(age_s)} ago); next expected by {health['next_heartbeat_expected']}"
    degraded, expired = health["timeout_threshold"], health["eviction_threshold"]
    return {
        "Status": f"{format_status(document)} ({health['message']})",
        "Heartbeat": heartbeat,
        **({"Overdue since": document["overdue_since"]} if "overdue_since" in document else {}),
        "Thresholds": f"degraded after {degraded:g} s, expired after {expired:g} s",
        "Registered": document["created_at"],
        "Changed": document["updated_at"],
    }
