"""`mcp-mesh-registry agent`: all there is to know of one agent."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import calls_registry
from registry.cli.errors import RemoteCommand, success
from registry.cli.follow import follow
from registry.cli.output.agent_tables import names_of, pairs_of, status_of
from registry.cli.output.ages import lasting
from registry.cli.output.fields import show_fields
from registry.cli.output.formats import is_document, output_option, show_document
from registry.cli.output.tables import Column, Row, Table
from registry.cli.output.terminal_safe import harmless
from registry.cli.output.wires import NEEDS, needs

if TYPE_CHECKING:
    from mcp_mesh_client import AgentHealth, SyncRegistryClient

_CAPABILITIES = (
    Column("NAME", lambda row: row.get("name")),
    Column("VERSION", lambda row: row.get("version")),
    Column("STABILITY", lambda row: row.get("stability")),
    Column("TAGS", lambda row: names_of(row.get("tags"))),
    Column("FUNCTION", lambda row: row.get("function_name")),
    Column("DESCRIPTION", lambda row: row.get("description")),
)
_DEPENDENTS = (
    Column("AGENT", lambda row: row["agent_id"]),
    Column("FUNCTION", lambda row: row["function"]),
    Column("CAPABILITY", lambda row: row["capability"]),
    Column("WITHOUT THIS ONE", lambda row: "breaks" if row["breaks"] else f"{row['alternatives']} others would do"),
)


@click.command(cls=RemoteCommand)
@click.argument("agent_id", metavar="ID", shell_complete=complete_agents)
@click.option("--watch", "-w", is_flag=True, help="One line, and another for each change, until Ctrl-C.")
@output_option()
@calls_registry
def agent(registry: "SyncRegistryClient", *, agent_id: str, watch: bool, output: str | None) -> None:
    """Show one agent: what it says of itself, how it is, what it needs, and who needs it."""
    found: Any = success(registry.agent(agent_id))
    if watch:
        follow(registry, {"agent_id": agent_id}, output, initial=True, events=False)
    elif is_document(output):
        show_document(found, output)
    elif output == "name":
        click.echo(harmless(found["id"]))
    else:
        health = success(registry.agent_health(agent_id))
        wires = success(registry.dependencies(agent_id))
        dependents = success(registry.dependents(agent_id))["dependents"]
        show_fields({**_told(found), **_lived(found, health), "Resource version": found["resource_version"]})
        _part("Capabilities", _CAPABILITIES, found["capabilities"])
        _part("Dependencies", NEEDS, needs(wires))
        _part("Dependents", _DEPENDENTS, dependents)


def _told(found: Mapping[str, Any]) -> dict[str, object]:
    """Return what an agent says of itself, by what it is called here."""
    metadata = found.get("metadata") or {}
    return {
        "Id": found["id"],
        "Name": found["name"],
        "Namespace": found["namespace"],
        "Type": found["agent_type"],
        "Endpoint": found["endpoint"],
        "Labels": pairs_of(found["labels"]),
        "Annotations": pairs_of(found["annotations"]),
        "Metadata": pairs_of({name: value for name, value in metadata.items() if name not in ("endpoint", "tools")}),
        "Security context": found.get("security_context"),
    }


def _lived(found: Mapping[str, Any], health: "AgentHealth") -> dict[str, object]:
    """Return how an agent is and was."""
    silence, heartbeat = health["time_since_heartbeat"], found["last_heartbeat"]
    if silence is not None:
        heartbeat = f"{heartbeat} ({lasting(silence)} ago); the next by {health['next_heartbeat_expected']}"
    degraded, expired = health["timeout_threshold"], health["eviction_threshold"]
    return {
        "Status": f"{status_of(found)} ({health['message']})",
        "Heartbeat": heartbeat,
        "Silence": f"degraded after {degraded:g} s, expired after {expired:g} s",
        "Registered": found["created_at"],
        "Changed": found["updated_at"],
    }


def _part(title: str, columns: Iterable[Column], rows: Iterable[Row]) -> None:
    """Write a table under its title, or that there is nothing."""
    there = list(rows)
    click.echo(f"\n{title}:{'' if there else '   -'}")
    if there:
        Table(list(columns), indent="  ").show(there)
