"""Where the registry is, for every command that calls one: the options, and the client made of them."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

# Slow imports happen when a command runs, so that --help stays fast.
# ruff: noqa: PLC0415

Command = Callable[..., Any]

# Whoever types where a replica runs has its own setting at hand.
_TOKEN_VARIABLES = ("MCP_MESH_REGISTRY_TOKEN", "AUTH_TOKEN")
_NULL_HANDLER = logging.NullHandler()

url_option = click.option(
    "--url",
    envvar="MCP_MESH_REGISTRY_URL",
    default="http://localhost:8000",
    show_default=True,
    help="Any replica of the mesh, or several joined by commas. [MCP_MESH_REGISTRY_URL]",
)
token_option = click.option(
    "--token",
    envvar=_TOKEN_VARIABLES,
    help="The token the registry asks for, if it does. [MCP_MESH_REGISTRY_TOKEN, AUTH_TOKEN]",
)
_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one call may take, tries at other replicas and all.",
)


def with_registry_client(function: Command) -> Command:
    """Give a command the options that say where the registry is, and a client as its first argument."""

    @functools.wraps(function)
    def called(*, url: str, token: str | None, timeout: float, **given: Any) -> Any:
        with open_client(url, token, timeout) as registry:
            return function(registry, **given)

    return url_option(token_option(_timeout_option(called)))


@contextlib.contextmanager
def open_client(url: str, token: str | None, timeout: float, **options: Any) -> Iterator["SyncRegistryClient"]:
    """Provide a client of the registry at a URL. Raises InvalidData."""
    from mcp_mesh_client import SyncRegistryClient

    # What it would log is told by the command itself.
    logging.getLogger("mcp_mesh_client").addHandler(_NULL_HANDLER)
    options |= {"timeout": timeout, "security_contexts": {}}
    with SyncRegistryClient(url, token=token or None, **options) as registry:
        yield registry


@contextlib.contextmanager
def report_connection_state() -> Iterator[None]:
    """Let who follows a mesh know, on standard error, when the registry goes away and when it is back."""
    log, teller = logging.getLogger("mcp_mesh_client"), _StderrLogHandler(logging.INFO)
    level = log.level
    log.addHandler(teller)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(teller)
        log.setLevel(level)


class _StderrLogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        word = "Warning: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{word}{escape_terminal(record.getMessage())}", err=True)
