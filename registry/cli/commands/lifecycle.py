"""`mcp-mesh-registry unregister`, `drain` and `undrain`: agents leave, step aside and come back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from registry.cli.completers import complete_agents, complete_namespaces
from registry.cli.connection import calls_registry
from registry.cli.errors import NotThere, Trouble, WritingCommand, reason_of, refused, success
from registry.cli.output.formats import check_format, is_document, output_option, show_event
from registry.cli.output.terminal_safe import harmless

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

Answer = Mapping[str, Any]
Command = Callable[..., Any]

_ids = click.argument("ids", nargs=-1, metavar="ID...", shell_complete=complete_agents)


def _many(command: Command) -> Command:
    """Give a command the options that find agents instead of naming them."""
    selector = click.option("--selector", "-l", help="All whose labels match, such as host=blade-7.")
    namespace = click.option("--namespace", "-n", shell_complete=complete_namespaces, help="All of this namespace.")
    return selector(namespace(command))


@click.command(cls=WritingCommand)
@click.argument("ids", nargs=-1, metavar="ID...", required=True, shell_complete=complete_agents)
@click.option("--ignore-not-found", is_flag=True, help="Who is not there is no failure.")
@output_option("json", "yaml", "name")
@calls_registry
def unregister(
    registry: "SyncRegistryClient", *, ids: Sequence[str], ignore_not_found: bool, output: str | None
) -> None:
    """Remove agents from the mesh, one after the other."""
    check_format(output)
    told = _Told(output, "unregistered", ignored="unknown_agent" if ignore_not_found else None)
    for agent_id in ids:
        told.tell(agent_id, registry.unregister_agent(agent_id))
    told.end()


@click.command(cls=WritingCommand)
@_ids
@_many
@output_option("json", "yaml", "name")
@calls_registry
def drain(registry: "SyncRegistryClient", **given: Any) -> None:
    """Take agents out of service: they live on, but are not discovered, nor chosen for a dependency."""
    _shift(registry.drain, registry.drain_many, "drains", **given)


@click.command(cls=WritingCommand)
@_ids
@_many
@output_option("json", "yaml", "name")
@calls_registry
def undrain(registry: "SyncRegistryClient", **given: Any) -> None:
    """Put agents back into service."""
    _shift(registry.undrain, registry.undrain_many, "is in service", **given)


def _shift(
    one: Callable[[str], Any],
    many: Callable[..., Any],
    done: str,
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
    check_format(output)
    told = _Told(output, done)
    for agent_id in ids:
        told.tell(agent_id, one(agent_id))
    if found:
        answer: Any = success(many(label_selector=selector, namespace=namespace))
        if is_document(output):
            show_event(answer, output)
        elif not answer["results"]:
            click.echo("No agents found", err=True)
        for agent_id, result in answer["results"].items():
            told.tell(agent_id, result, whole=True)
    told.end()


class _Told:
    """Says what became of each agent, and ends with an error if not all is `done`; `ignored` is no error."""

    def __init__(self, output: str | None, done: str, *, ignored: str | None = None) -> None:
        self._output = output
        self._done = done
        self._ignored = ignored
        self._failures: list[Answer] = []
        self._count = 0

    def tell(self, agent_id: str, answer: Answer, *, whole: bool = False) -> None:
        """Say what was answered; not as a document where it stands in a `whole` that was shown."""
        self._count += 1
        if answer.get("error") == "unauthorized":
            raise refused(answer)
        if "error" in answer:
            if answer["error"] != self._ignored:
                self._failures.append(answer)
                click.echo(f"Error: {harmless(reason_of(answer))}", err=True)
        elif is_document(self._output):
            if not whole:
                show_event(answer, self._output)
        elif self._output == "name":
            click.echo(harmless(agent_id))
        else:
            already = "" if answer.get("changed", True) else ", as before"
            click.echo(f"{harmless(agent_id)} {self._done}{already}")

    def end(self) -> None:
        """Raise Trouble if something failed."""
        if not self._failures:
            return
        unknown = all(answer["error"] == "unknown_agent" for answer in self._failures)
        raise click.exceptions.Exit((NotThere if unknown else Trouble).exit_code)
