"""What goes wrong, as one line on standard error and an exit code."""

import os
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import click

from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import ClientError, ErrorResponse, OfflineResponse, RegistryTimeout, RegistryUnavailable

# Slow imports happen when a command runs, so that --help stays fast.
# ruff: noqa: PLC0415

T = TypeVar("T")

# Exit codes of the commands that call a registry; README.md has the table.
EXIT_FAILED = 1
EXIT_USAGE = 2  # the code that click uses
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4
EXIT_INTERRUPTED = 130  # the code a shell reports for SIGINT
EXIT_PIPE_CLOSED = 141  # the code a shell reports for SIGPIPE

_NOT_FOUND_CODES = frozenset({"unknown_agent", "no_provider"})
_UNAVAILABLE_CODES = frozenset({"not_ready", "store_unavailable"})


class CommandError(click.ClickException):
    """Ends the command; the message is shown as one line, harmless."""

    exit_code = EXIT_FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to standard error."""
        click.echo(f"Error: {escape_terminal(self.message)}", file=file, err=file is None)


class UsageError(CommandError):
    """What was given cannot be asked."""

    exit_code = EXIT_USAGE


class NotFound(CommandError):
    """There is no such agent, or nobody who would do."""

    exit_code = EXIT_NOT_FOUND


class Unavailable(CommandError):
    """No registry answers, or none can do it now."""

    exit_code = EXIT_UNAVAILABLE


class RegistryCommand(click.Command):
    """A command that calls a registry: whatever goes wrong on the way ends with one of our exit codes."""

    is_write = False

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises Trouble, and click's own exceptions."""
        from mcp_mesh_client import ClientError

        if sys.stdout is None:
            raise CommandError("Standard output is closed, so there is nowhere to answer")
        # What the terminal's encoding has no character for is escaped.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except ClientError as error:
            raise to_command_error(error, is_write=self.is_write) from error
        except BrokenPipeError:
            # Who read has enough.
            _discard_stdout()
            raise click.exceptions.Exit(EXIT_PIPE_CLOSED) from None
        except OSError as error:
            _discard_stdout()
            raise CommandError(f"Cannot write the answer: {error.strerror or error}") from error


def _discard_stdout() -> None:
    """Let what is left to write go nowhere: Python writes it when it ends, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class RegistryWriteCommand(RegistryCommand):
    """One that changes something, so that it matters whether a call without an answer did it."""

    is_write = True


def to_command_error(error: "ClientError", *, is_write: bool) -> CommandError:
    """Return what an exception of the client means here."""
    from mcp_mesh_client import InvalidData, InvalidResponse, RegistryTimeout, RegistryUnavailable, RequestRejected

    match error:
        case RequestRejected():
            return to_refusal_error(error.response)
        case InvalidData():
            return UsageError(str(error))
        case InvalidResponse():
            return Unavailable(str(error))
        case RegistryUnavailable() | RegistryTimeout() if error.response is not None:
            return Unavailable(
                f"The registry cannot do it now, try again: {error}{_outcome_hint(error, is_write=is_write)}"
            )
        case RegistryUnavailable() | RegistryTimeout():
            asks = "does it run, and is --url (MCP_MESH_REGISTRY_URL) right?"
            return Unavailable(
                f"The registry does not answer: {error}; {asks}{_outcome_hint(error, is_write=is_write)}"
            )
        case _:
            return CommandError(str(error))


def _outcome_hint(error: "RegistryUnavailable | RegistryTimeout", *, is_write: bool) -> str:
    unknown = is_write and error.outcome == "unknown"
    return " It may have been done all the same, so look before you repeat it" if unknown else ""


def to_refusal_error(response: Mapping[str, Any]) -> CommandError:
    """Return what a refusal means here."""
    code = str(response.get("error"))
    kind = NotFound if code in _NOT_FOUND_CODES else Unavailable if code in _UNAVAILABLE_CODES else CommandError
    return kind(format_refusal(response))


def format_refusal(response: Mapping[str, Any]) -> str:
    """Return why something was refused, and what to do, in one line."""
    if response.get("error") == "unauthorized":
        return "The registry asks for a token: give the right one as --token or in MCP_MESH_REGISTRY_TOKEN"
    if response.get("error") == "validation_failed" and response.get("details"):
        return "; ".join(map(_format_detail, response["details"]))
    return str(response.get("message") or response.get("error"))


def _format_detail(detail: Mapping[str, Any]) -> str:
    field, problem = str(detail.get("field")), str(detail.get("problem"))
    return problem if problem.endswith(f": {field}") else f"{field}: {problem}"


def unwrap(response: "T | ErrorResponse | OfflineResponse") -> T:
    """Return an answer that is no refusal; tell on standard error where it may be old. Raises Trouble for a refusal."""
    read = cast("Mapping[str, Any]", response)
    if "error" in read:
        raise to_refusal_error(read)
    if "stale_seconds" in read:
        click.echo(f"Warning: the registry cannot be fresh now; this may be {read['stale_seconds']} s old", err=True)
    return cast("T", response)
