"""The options that filter agents, used by several commands."""

from typing import Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces
from registry.cli.connection import Command

STATUS_CHOICE = click.Choice(("pending", "healthy", "degraded", "expired", "unhealthy", "offline", "any"))
STABILITY_CHOICE = click.Choice(("alpha", "beta", "experimental", "stable", "deprecated"))

# Each option's parameter has the name of the API's filter.
_FILTER_OPTIONS = (
    click.option("--namespace", "-n", shell_complete=complete_namespaces, help="Only agents in this namespace."),
    click.option("--selector", "-l", "label_selector", help="Label selector, such as env=prod,tier!=free."),
    click.option("--status", type=STATUS_CHOICE, help="Only this status; unhealthy means degraded or expired."),
    click.option(
        "--capability",
        "-c",
        multiple=True,
        shell_complete=complete_capabilities,
        help="Require this capability; repeat to require several.",
    ),
    click.option("--match", type=click.Choice(("all", "any")), help="all (default) or any of the capabilities."),
    click.option("--version-constraint", help="Version of the capability, such as '>=1.2,<2'."),
    click.option(
        "--tag", "capability_tags", multiple=True, help="Require this capability tag; repeat to require several."
    ),
    click.option("--category", "capability_category", help="Category of the capability."),
    click.option("--stability", "capability_stability", type=STABILITY_CHOICE, help="Stability of the capability."),
    click.option(
        "--fuzzy",
        "fuzzy_match",
        is_flag=True,
        default=None,
        help="Match capability names approximately, best match first.",
    ),
    click.option("--draining/--in-service", default=None, help="Only draining agents, or only agents in service."),
    click.option("--id", "agent_id", shell_complete=complete_agents, help="Only this agent."),
)


def with_agent_filter_options(command: Command) -> Command:
    """Add the options that filter agents to a command."""
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


def drop_unset(options: dict[str, Any]) -> dict[str, Any]:
    """Return only the options that have a value."""
    return {name: value for name, value in options.items() if value not in (None, ())}
