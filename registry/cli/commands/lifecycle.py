"""`mcp-mesh-registry unregister`, `drain` and `undrain`: agents leave, step aside and come back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents, complete_namespaces
from registry.cli.connection import with_registry_client
from registry.cli.errors import CommandError, NotFound, RegistryWriteCommand, format_refusal, to_refusal_error, unwrap
from registry.cli.output.formats import is_document, output_option, print_event
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

Response = Mapping[str, Any]
Command = Callable[..., Any]

_ids_argument = click.argument("ids", nargs=-1, metavar="ID...", shell_complete=complete_agents)


def _with_filter_options(command: Command) -> Command:
    """Give a command the options that find agents instead of naming them."""
    selector = click.option("--selector", "-l", help="All whose labels match, such as host=blade-7.")
    namespace = click.option("--namespace", "-n", shell_complete=complete_namespaces, help="All of this namespace.")
    return selector(namespace(command))


@click.command(cls=RegistryWriteCommand)
@click.argument("ids", nargs=-1, metavar="ID...", required=True, shell_complete=complete_agents)
@click.option("--ignore-not-found", is_flag=True, help="Who is not there is no failure.")
@output_option("json", "yaml", "name")
@with_registry_client
def unregister(
    registry: "SyncRegistryClient", *, ids: Sequence[str], ignore_not_found: bool, output: str | None
) -> None:
    """Remove agents from the mesh, one after the other."""
    told = ResultReporter(output, "unregistered", ignored_error="unknown_agent" if ignore_not_found else None)
    for agent_id in ids:
        told.report(agent_id, registry.unregister_agent(agent_id))
    told.raise_if_failed()


@click.command(cls=RegistryWriteCommand)
@_ids_argument
@_with_filter_options
@output_option("json", "yaml", "name")
@with_registry_client
def drain(registry: "SyncRegistryClient", **given: Any) -> None:
    """Take agents out of service: they live on, but are not discovered, nor chosen for a dependency."""
    _set_draining(registry.drain, registry.drain_many, "drains", **given)


@click.command(cls=RegistryWriteCommand)
@_ids_argument
@_with_filter_options
@output_option("json", "yaml", "name")
@with_registry_client
def undrain(registry: "SyncRegistryClient", **given: Any) -> None:
    """Put agents back into service."""
    _set_draining(registry.undrain, registry.undrain_many, "is in service", **given)


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
    """Shift agents by their ids, or all that a selector finds."""
    found = selector is not None or namespace is not None
    if bool(ids) == found:
        raise click.UsageError("Give the ids of agents, or --selector, --namespace or both")
    told = ResultReporter(output, success_text)
    for agent_id in ids:
        told.report(agent_id, by_id(agent_id))
    if found:
        answer: Any = unwrap(by_filter(label_selector=selector, namespace=namespace))
        if is_document(output):
            print_event(answer, output)
        elif not answer["results"]:
            click.echo("No agents found", err=True)
        for agent_id, result in answer["results"].items():
            told.report(agent_id, result, in_document=True)
    told.raise_if_failed()


class ResultReporter:
    """Prints the result of each agent, and exits with an error unless all are `success_text` or `ignored_error`."""

    def __init__(self, output: str | None, success_text: str, *, ignored_error: str | None = None) -> None:
        self._output = output
        self._success_text = success_text
        self._ignored_error = ignored_error
        self._failures: list[Response] = []
        self._count = 0

    def report(self, agent_id: str, response: Response, *, in_document: bool = False) -> None:
        """Say what was answered; not as a document where it stands in a `in_document` that was shown."""
        self._count += 1
        if response.get("error") == "unauthorized":
            raise to_refusal_error(response)
        if "error" in response:
            if response["error"] != self._ignored_error:
                self._failures.append(response)
                click.echo(f"Error: {escape_terminal(format_refusal(response))}", err=True)
        elif is_document(self._output):
            if not in_document:
                print_event(response, self._output)
        elif self._output == "name":
            click.echo(escape_terminal(agent_id))
        else:
            already = "" if response.get("changed", True) else ", as before"
            click.echo(f"{escape_terminal(agent_id)} {self._success_text}{already}")

    def raise_if_failed(self) -> None:
        """Raise Trouble if something failed."""
        if not self._failures:
            return
        unknown = all(answer["error"] == "unknown_agent" for answer in self._failures)
        raise click.exceptions.Exit((NotFound if unknown else CommandError).exit_code)
