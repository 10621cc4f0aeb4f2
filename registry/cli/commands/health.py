"""`mcp-mesh-registry health`: how the registry is, or one agent."""

from typing import TYPE_CHECKING

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import with_registry_client
from registry.cli.errors import EXIT_FAILED, RegistryCommand, unwrap
from registry.cli.output.ages import format_age
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import print_fields

if TYPE_CHECKING:
    from mcp_mesh_client import AgentHealth, Health, SyncRegistryClient


@click.command(cls=RegistryCommand)
@click.argument("agent_id", metavar="[ID]", required=False, shell_complete=complete_agents)
@output_option("json", "yaml")
@with_registry_client
def health(registry: "SyncRegistryClient", *, agent_id: str | None, output: str | None) -> None:
    """Show how a replica of the registry is, or one agent. The exit code is 1 where that is not healthy."""
    if agent_id is None:
        answer: Health | AgentHealth = (replica := unwrap(registry.health()))
        well, fields = replica["status"] == "healthy" and replica["ready"], _replica_fields(replica)
    else:
        answer = agent = unwrap(registry.agent_health(agent_id))
        well, fields = agent["status"] == "healthy", _agent_fields(agent)
    if is_document(output):
        print_document(answer, output)
    else:
        print_fields(fields)
    raise click.exceptions.Exit(0 if well else EXIT_FAILED)


def _replica_fields(health: "Health") -> dict[str, object]:
    leader, hold, outage = health["leader"], health["self_preservation"], health["outage"]
    if hold["active"]:
        held = f"until {hold['until']}: {hold['overdue_at_start']} of {hold['healthy']} agents are overdue"
    else:
        held = "none"
    return {
        "Status": health["status"],
        "Ready": "yes" if health["ready"] else "no",
        "Replica": f"{health['instance']}, version {health['version']}, up {format_age(health['uptime_seconds'])}",
        "Leader": f"{leader['instance']}, since {leader['since']}" if leader["instance"] else "nobody",
        "Resource version": health["resource_version"],
        "Behind the store": f"{health['staleness_seconds']:g} s",
        "Bell": health["change_notifications"],
        "Last outage": f"{outage['cause']}, until {outage['until']}" if outage["until"] else "none known",
        "Hold": held,
        "Warnings": "; ".join(health["warnings"]) or "none",
    }


def _agent_fields(health: "AgentHealth") -> dict[str, object]:
    silence = health["time_since_heartbeat"]
    return {
        "Agent": health["agent_id"],
        "Status": f"{health['status']} ({health['message']})",
        "Last heartbeat": health["last_heartbeat"] if silence is None else f"{format_age(silence)} ago",
        "Next by": health["next_heartbeat_expected"],
        "Degraded after": f"{health['timeout_threshold']:g} s",
        "Expired after": f"{health['eviction_threshold']:g} s",
    }
