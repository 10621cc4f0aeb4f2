"""The commands `unregister`, `drain` and `undrain`, which remove agents or change whether they are in service."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from registry.cli.completers import complete_agents, complete_namespaces
from registry.cli.connection import Command, SyncRegistryClient, with_registry_client
from registry.cli.errors import (
    CommandError,
    NotFound,
    RegistryWriteCommand,
    error_from_response,
    format_error_response,
    unwrap,
)
from registry.cli.output.formats import is_document, output_option, print_event
from registry.cli.output.terminal_safe import escape_terminal

Response = Mapping[str, Any]


def _drain_command(function: Command) -> click.Command:
    """Return a command that changes agents given by their ids, a selector or a namespace."""
    for decorate in (
        with_registry_client,
        output_option("json", "yaml", "name"),
        click.option("--namespace", "-n", shell_complete=complete_namespaces, help="All agents in this namespace."),
        click.option("--selector", "-l", help="All agents whose labels match, such as host=blade-7."),
        click.argument("ids", nargs=-1, metavar="ID...", shell_complete=complete_agents),
    ):
        function = decorate(function)
    return click.command(cls=RegistryWriteCommand)(function)


@click.command(cls=RegistryWriteCommand)
@click.argument("ids", nargs=-1, metavar="ID...", required=True, shell_complete=complete_agents)
@click.option("--ignore-not-found", is_flag=True, help="Ignore unknown agents.")
@output_option("json", "yaml", "name")
@with_registry_client
def unregister(registry: SyncRegistryClient, *, ids: Sequence[str], ignore_not_found: bool, output: str | None) -> None:
    """Remove agents from the mesh, one after the other."""
    reporter = ResultReporter(output, "unregistered", ignored_error="unknown_agent" if ignore_not_found else None)
    for agent_id in ids:
        reporter.report(agent_id, registry.unregister_agent(agent_id))
    reporter.raise_if_failed()


@_drain_command
def drain(registry: SyncRegistryClient, **options: Any) -> None:
    """Take agents out of service: they stay registered but are not discovered or selected."""
    _set_draining(registry.drain, registry.drain_many, "draining", **options)


@_drain_command
def undrain(registry: SyncRegistryClient, **options: Any) -> None:
    """Put agents back into service."""
    _set_draining(registry.undrain, registry.undrain_many, "in service", **options)


def _set_draining(
    by_id: Callable[[str], Any],
    by_filter: Callable[..., Any],
    success_text: str,
    *,
    ids: Sequence[str],
    selector: str | None,
    namespace: str | None,
    output: str | None,
) -> None:
    """Drain or undrain agents by their ids, or all that match a selector or namespace."""
    uses_filter = selector is not None or namespace is not None
    if bool(ids) == uses_filter:
        raise click.UsageError("Give the ids of agents, or --selector, --namespace or both")
    reporter = ResultReporter(output, success_text)
    for agent_id in ids:
        reporter.report(agent_id, by_id(agent_id))
    if uses_filter:
        response: Any = unwrap(by_filter(label_selector=selector, namespace=namespace))
        if is_document(output):
            print_event(response, output)
        elif not response["results"]:
            click.echo("No agents found", err=True)
        for agent_id, result in response["results"].items():
            reporter.report(agent_id, result, in_document=True)
    reporter.raise_if_failed()


class ResultReporter:
    """Prints the result of each agent and collects failures; the error code `ignored_error` is not a failure."""

    def __init__(self, output: str | None, success_text: str, *, ignored_error: str | None = None) -> None:
        self._output = output
        self._success_text = success_text
        self._ignored_error = ignored_error
        self._failures: list[Response] = []
        self._count = 0

    def report(self, agent_id: str, response: Response, *, in_document: bool = False) -> None:
        """Print the result for one agent; with `in_document` a document with all results was printed before."""
        self._count += 1
        if response.get("error") == "unauthorized":
            raise error_from_response(response)
        if "error" in response:
            if response["error"] != self._ignored_error:
                self._failures.append(response)
                click.echo(f"Error: {escape_terminal(format_error_response(response))}", err=True)
        elif is_document(self._output):
            if not in_document:
                print_event(response, self._output)
        elif self._output == "name":
            click.echo(escape_terminal(agent_id))
        else:
            suffix = "" if response.get("changed", True) else " (unchanged)"
            click.echo(f"{escape_terminal(agent_id)} {self._success_text}{suffix}")

    def raise_if_failed(self) -> None:
        """Exit with an error code if the command failed for an agent."""
        if not self._failures:
            return
        unknown = all(failure["error"] == "unknown_agent" for failure in self._failures)
        raise click.exceptions.Exit((NotFound if unknown else CommandError).exit_code)
