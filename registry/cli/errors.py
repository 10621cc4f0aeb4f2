"""The errors of commands, each shown as one line on standard error and an exit code."""

import os
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import click

from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import ClientError, ErrorResponse, OfflineResponse, RegistryTimeout, RegistryUnavailable

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
    """An error that ends a command; its message is printed as one line without control characters."""

    exit_code = EXIT_FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error message to standard error."""
        click.echo(f"Error: {escape_terminal(self.message)}", file=file, err=file is None)


class UsageError(CommandError):
    """The error for invalid arguments; the command sent no request."""

    exit_code = EXIT_USAGE


class NotFound(CommandError):
    """The error for an unknown agent, or for a dependency without a provider."""

    exit_code = EXIT_NOT_FOUND


class Unavailable(CommandError):
    """The error for a registry that cannot be reached or is temporarily unavailable."""

    exit_code = EXIT_UNAVAILABLE


class RegistryCommand(click.Command):
    """Base class of commands that call a registry, which sets the exit code after an error."""

    is_write = False

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises CommandError and click's own exceptions."""
        from mcp_mesh_client import ClientError

        if sys.stdout is None:
            raise CommandError("Standard output is closed; there is nowhere to write")
        # Characters that the terminal's encoding cannot represent are escaped.
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
            # The reader of the pipe, such as head, has closed it.
            _discard_stdout()
            raise click.exceptions.Exit(EXIT_PIPE_CLOSED) from None
        except OSError as error:
            _discard_stdout()
            raise CommandError(f"Cannot write the output: {error.strerror or error}") from error


def _discard_stdout() -> None:
    """Redirect standard output to /dev/null, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class RegistryWriteCommand(RegistryCommand):
    """Base class of commands that change data; an error message warns if the change may have been applied."""

    is_write = True


def to_command_error(error: "ClientError", *, is_write: bool) -> CommandError:
    """Return the command error for an exception of the client."""
    from mcp_mesh_client import InvalidData, InvalidResponse, RegistryTimeout, RegistryUnavailable, RequestRejected

    match error:
        case RequestRejected():
            return error_from_response(error.response)
        case InvalidData():
            return UsageError(str(error))
        case InvalidResponse():
            return Unavailable(str(error))
        case RegistryUnavailable() | RegistryTimeout() if error.response is not None:
            return Unavailable(
                f"The registry is temporarily unavailable, try again: {error}{_outcome_hint(error, is_write=is_write)}"
            )
        case RegistryUnavailable() | RegistryTimeout():
            advice = "check that it runs and that --url (MCP_MESH_REGISTRY_URL) is right"
            return Unavailable(f"Cannot reach the registry: {error}; {advice}{_outcome_hint(error, is_write=is_write)}")
        case _:
            return CommandError(str(error))


def _outcome_hint(error: "RegistryUnavailable | RegistryTimeout", *, is_write: bool) -> str:
    is_unknown = is_write and error.outcome == "unknown"
    return ". The change may have been applied; check before you retry" if is_unknown else ""


def error_from_response(response: Mapping[str, Any]) -> CommandError:
    """Return the command error for an error response of the registry."""
    code = str(response.get("error"))
    error_class = NotFound if code in _NOT_FOUND_CODES else Unavailable if code in _UNAVAILABLE_CODES else CommandError
    return error_class(format_error_response(response))


def format_error_response(response: Mapping[str, Any]) -> str:
    """Return the message of an error response, with advice if there is any, as one line."""
    if response.get("error") == "unauthorized":
        return "The registry requires a token: set --token or MCP_MESH_REGISTRY_TOKEN"
    if response.get("error") == "validation_failed" and response.get("details"):
        return "; ".join(map(_format_detail, response["details"]))
    return str(response.get("message") or response.get("error"))


def _format_detail(detail: Mapping[str, Any]) -> str:
    field, problem = str(detail.get("field")), str(detail.get("problem"))
    return problem if problem.endswith(f": {field}") else f"{field}: {problem}"


def unwrap(response: "T | ErrorResponse | OfflineResponse") -> T:
    """Return a response; warn on standard error if it may be stale. Raises CommandError for an error response."""
    fields = cast("Mapping[str, Any]", response)
    if "error" in fields:
        raise error_from_response(fields)
    if "stale_seconds" in fields:
        click.echo(
            f"Warning: the registry cannot reach its store; this response may be {fields['stale_seconds']} s old",
            err=True,
        )
    return cast("T", response)
