"""The command `mcp-mesh-registry health`, which shows the health of a replica or of an agent."""

from typing import TYPE_CHECKING

import click

from registry.cli.completers import complete_agents
from registry.cli.connection import with_registry_client
from registry.cli.errors import EXIT_FAILED, RegistryCommand, unwrap
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.tables import format_age, print_fields

if TYPE_CHECKING:
    from mcp_mesh_client import AgentHealth, Health, SyncRegistryClient
    from mcp_mesh_client.types.health import SelfPreservation

_MAX_NAMESPACES_SHOWN = 3


@click.command(cls=RegistryCommand)
@click.argument("agent_id", metavar="[ID]", required=False, shell_complete=complete_agents)
@output_option("json", "yaml")
@with_registry_client
def health(registry: "SyncRegistryClient", *, agent_id: str | None, output: str | None) -> None:
    """Show the health of a replica, or of one agent. The exit code is 1 if it is not healthy."""
    if agent_id is None:
        response: Health | AgentHealth = (replica := unwrap(registry.health()))
        is_healthy = replica["status"] == "healthy" and replica["ready"]
        fields = {"Status": replica["status"], "Ready": "yes" if replica["ready"] else "no"} | _replica_details(replica)
    else:
        response = agent = unwrap(registry.agent_health(agent_id))
        is_healthy, fields = agent["status"] == "healthy", _agent_fields(agent)
    if is_document(output):
        print_document(response, output)
    else:
        print_fields(fields)
    raise click.exceptions.Exit(0 if is_healthy else EXIT_FAILED)


def _replica_details(health: "Health") -> dict[str, object]:
    if "leader" not in health:
        return {"Details": "only with the token of the registry: set --token or MCP_MESH_REGISTRY_TOKEN"}
    leader, self_preservation, outage = health["leader"], health["self_preservation"], health["outage"]
    if self_preservation["active"]:
        suspension = (
            f"until {self_preservation['until']}, in {_protected(self_preservation)}: "
            f"{self_preservation['overdue_at_start']} of {self_preservation['healthy']} healthy agents overdue"
        )
    else:
        suspension = "none"
    return {
        "Replica": f"{health['instance']}, version {health['version']}, up {format_age(health['uptime_seconds'])}",
        "Leader": f"{leader['instance']}, since {leader['since']}" if leader["instance"] else "none",
        "Resource version": health["resource_version"],
        "Cache staleness": f"{health['staleness_seconds']:g} s",
        "Change notifications": health["change_notifications"],
        "Last outage": f"{outage['cause']}, until {outage['until']}" if outage["until"] else "none known",
        "Self-preservation": suspension,
        "Warnings": "; ".join(health["warnings"]) or "none",
    }


def _protected(self_preservation: "SelfPreservation") -> str:
    """Return the namespaces in self-preservation, the first three by name."""
    names = [each["namespace"] for each in self_preservation["namespaces"][:_MAX_NAMESPACES_SHOWN]]
    others = self_preservation["protected_namespaces"] - len(names)
    names += [f"{others} more"] if others > 0 else []
    return " and ".join(["the whole mesh", *names] if self_preservation["mesh_wide"] else names)


def _agent_fields(health: "AgentHealth") -> dict[str, object]:
    age_s = health["time_since_heartbeat"]
    return {
        "Agent": health["agent_id"],
        "Status": f"{health['status']} ({health['message']})",
        "Last heartbeat": health["last_heartbeat"] if age_s is None else f"{format_age(age_s)} ago",
        "Next by": health["next_heartbeat_expected"],
        "Degraded after": f"{health['timeout_threshold']:g} s",
        "Expired after": f"{health['eviction_threshold']:g} s",
    }
