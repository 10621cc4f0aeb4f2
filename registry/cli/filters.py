"""Options that filter agents, shared by several commands."""

from collections.abc import Callable
from typing import Any

import click

from registry.cli.completers import complete_agents, complete_capabilities, complete_namespaces

Command = Callable[..., Any]

STATUS_CHOICE = click.Choice(("pending", "healthy", "degraded", "expired", "unhealthy", "offline", "any"))
STABILITY_CHOICE = click.Choice(("alpha", "beta", "experimental", "stable", "deprecated"))

# Each option's parameter has the name of the API's filter.
_FILTER_OPTIONS = (
    click.option("--namespace", "-n", shell_complete=complete_namespaces, help="Of this namespace alone."),
    click.option("--selector", "-l", "label_selector", help="Whose labels match, such as env=prod,tier!=free."),
    click.option("--status", type=STATUS_CHOICE, help="With this status; unhealthy is degraded or expired."),
    click.option(
        "--capability", "-c", multiple=True, shell_complete=complete_capabilities, help="That have it; several: all."
    ),
    click.option("--match", type=click.Choice(("all", "any")), help="any: one of several capabilities is enough."),
    click.option("--version-constraint", help="Of the capability, such as '>=1.2,<2'."),
    click.option("--tag", "capability_tags", multiple=True, help="The capability has it; several: all."),
    click.option("--category", "capability_category", help="Of the capability."),
    click.option("--stability", "capability_stability", type=STABILITY_CHOICE, help="Of the capability."),
    click.option("--fuzzy", "fuzzy_match", is_flag=True, default=None, help="Names nearly as asked, best first."),
    click.option("--draining/--in-service", default=None, help="Only agents that drain, or only the others."),
    click.option("--id", "agent_id", shell_complete=complete_agents, help="This agent alone."),
)


def with_agent_filter_options(command: Command) -> Command:
    """Add the options that filter agents to a command."""
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


def drop_unset(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that have a value."""
    return {name: value for name, value in options.items() if value not in (None, ())}
