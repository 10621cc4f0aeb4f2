"""`mcp-mesh-registry health`: how the registry is, or one agent."""

from typing import TYPE_CHECKING

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import calls_registry
from registry.cli.errors import RemoteCommand, success
from registry.cli.exits import FAILED
from registry.cli.output.ages import lasting
from registry.cli.output.fields import show_fields
from registry.cli.output.formats import check_format, is_document, output_option, show_document

if TYPE_CHECKING:
    from mcp_mesh_client import AgentHealth, Health, SyncRegistryClient


@click.command(cls=RemoteCommand)
@click.argument("agent_id", metavar="[ID]", required=False, shell_complete=complete_agents)
@output_option("json", "yaml")
@calls_registry
def health(registry: "SyncRegistryClient", *, agent_id: str | None, output: str | None) -> None:
    """Show how a replica of the registry is, or one agent. The exit code is 1 where that is not healthy."""
    check_format(output)
    if agent_id is None:
        answer: Health | AgentHealth = (replica := success(registry.health()))
        well, fields = replica["status"] == "healthy" and replica["ready"], _replica(replica)
    else:
        answer = agent = success(registry.agent_health(agent_id))
        well, fields = agent["status"] == "healthy", _agent(agent)
    if is_document(output):
        show_document(answer, output)
    else:
        show_fields(fields)
    raise click.exceptions.Exit(0 if well else FAILED)


def _replica(health: "Health") -> dict[str, object]:
    leader, hold, outage = health["leader"], health["hold"], health["outage"]
    if hold["active"]:
        held = f"until {hold['until']}: {hold['silent']} of {hold['healthy']} healthy agents fell silent together"
    else:
        held = "none"
    return {
        "Status": health["status"],
        "Ready": "yes" if health["ready"] else "no",
        "Replica": f"{health['instance']}, version {health['version']}, up {lasting(health['uptime_seconds'])}",
        "Leader": f"{leader['instance']}, since {leader['since']}" if leader["instance"] else "nobody",
        "Resource version": health["resource_version"],
        "Behind the store": f"{health['behind_seconds']:g} s",
        "Bell": health["bell"],
        "Last outage": f"{outage['cause']}, until {outage['until']}" if outage["until"] else "none known",
        "Hold": held,
        "Warnings": "; ".join(health["warnings"]) or "none",
    }


def _agent(health: "AgentHealth") -> dict[str, object]:
    silence = health["time_since_heartbeat"]
    return {
        "Agent": health["agent_id"],
        "Status": f"{health['status']} ({health['message']})",
        "Last heartbeat": health["last_heartbeat"] if silence is None else f"{lasting(silence)} ago",
        "Next by": health["next_heartbeat_expected"],
        "Degraded after": f"{health['timeout_threshold']:g} s",
        "Expired after": f"{health['eviction_threshold']:g} s",
    }
