"""The options --url, --token and --timeout, and the client that commands create from them."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from registry.cli.output.terminal_safe import escape_terminal
from registry.duration import parse_duration

if TYPE_CHECKING:
    import mcp_mesh_client

Command = Callable[..., Any]
SyncRegistryClient: TypeAlias = "mcp_mesh_client.SyncRegistryClient"

# AUTH_TOKEN is the setting of a replica, which may run in the same environment.
_TOKEN_VARIABLES = ("MCP_MESH_REGISTRY_TOKEN", "AUTH_TOKEN")
_NULL_HANDLER = logging.NullHandler()
# The text for each log event of the client about the connection.
_EVENT_TEXTS = {
    "registry_reachable": "The registry is reachable again",
    "registry_unavailable": "Warning: The registry is unavailable: ",
    "registry_degraded": "Warning: The registry is degraded: ",
}


def _to_seconds(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    """Parse a duration: a number of seconds, or text with a unit."""
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


url_option = click.option(
    "--url",
    envvar="MCP_MESH_REGISTRY_URL",
    default="http://localhost:8000",
    show_default=True,
    help="URL of a replica, or several separated by commas. [MCP_MESH_REGISTRY_URL]",
)
token_option = click.option(
    "--token",
    envvar=_TOKEN_VARIABLES,
    help="Bearer token, if the registry requires one. [MCP_MESH_REGISTRY_TOKEN, AUTH_TOKEN]",
)
_timeout_option = click.option(
    "--timeout",
    callback=_to_seconds,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="Timeout of one call, retries at other replicas included.",
)


def with_registry_client(function: Command) -> Command:
    """Add the connection options to a command and pass a client as its first argument."""

    @functools.wraps(function)
    def wrapper(*, url: str, token: str | None, timeout: float, **options: Any) -> Any:
        with open_client(url, token, timeout) as registry:
            return function(registry, **options)

    return url_option(token_option(_timeout_option(wrapper)))


@contextlib.contextmanager
def open_client(url: str, token: str | None, timeout: float, **options: Any) -> Iterator[SyncRegistryClient]:
    """Open a client for the registry at a URL. Raises InvalidData."""
    import mcp_mesh_client

    # The command reports errors itself, so the log events of the client are discarded.
    logging.getLogger("mcp_mesh_client").addHandler(_NULL_HANDLER)
    options |= {"timeout": timeout, "security_contexts": {}}
    with mcp_mesh_client.SyncRegistryClient(url, token=token or None, **options) as registry:
        yield registry


@contextlib.contextmanager
def report_connection_state() -> Iterator[None]:
    """Print to standard error when the client loses or regains its connection to the registry."""
    log, handler = logging.getLogger("mcp_mesh_client"), _StderrLogHandler(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _StderrLogHandler(logging.Handler):
    """Logging handler that writes the client's log events about the connection as sentences; ignores others."""

    def emit(self, record: logging.LogRecord) -> None:
        event, _, error = record.getMessage().partition(" error=")
        if event in _EVENT_TEXTS:
            click.echo(_EVENT_TEXTS[event] + escape_terminal(error), err=True)
