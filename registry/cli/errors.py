"""What goes wrong, as one line on standard error and an exit code."""

import os
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import click

from registry.cli.exits import FAILED, NOT_FOUND, PIPE_CLOSED, UNAVAILABLE, USAGE
from registry.cli.output.terminal_safe import harmless

if TYPE_CHECKING:
    from mcp_mesh_client import ClientError, Offline, Refusal, RegistryTimeout, RegistryUnavailable

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

T = TypeVar("T")

_NOBODY = frozenset({"unknown_agent", "no_provider"})
_LATER = frozenset({"not_ready", "store_unavailable"})


class Trouble(click.ClickException):
    """Ends the command; the message is shown as one line, harmless."""

    exit_code = FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to standard error."""
        click.echo(f"Error: {harmless(self.message)}", file=file, err=file is None)


class Misused(Trouble):
    """What was given cannot be asked."""

    exit_code = USAGE


class NotThere(Trouble):
    """There is no such agent, or nobody who would do."""

    exit_code = NOT_FOUND


class Unavailable(Trouble):
    """No registry answers, or none can do it now."""

    exit_code = UNAVAILABLE


class RemoteCommand(click.Command):
    """A command that calls a registry: whatever goes wrong on the way ends with one of our exit codes."""

    writes = False

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises Trouble, and click's own exceptions."""
        from mcp_mesh_client import ClientError

        if sys.stdout is None:
            raise Trouble("Standard output is closed, so there is nowhere to answer")
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
            raise trouble(error, writes=self.writes) from error
        except BrokenPipeError:
            # Who read has enough.
            _write_no_more()
            raise click.exceptions.Exit(PIPE_CLOSED) from None
        except OSError as error:
            _write_no_more()
            raise Trouble(f"Cannot write the answer: {error.strerror or error}") from error


def _write_no_more() -> None:
    """Let what is left to write go nowhere: Python writes it when it ends, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class WritingCommand(RemoteCommand):
    """One that changes something, so that it matters whether a call without an answer did it."""

    writes = True


def trouble(error: "ClientError", *, writes: bool) -> Trouble:
    """Return what an exception of the client means here."""
    from mcp_mesh_client import InvalidData, Refused, RegistryTimeout, RegistryUnavailable, UnreadableAnswer

    match error:
        case Refused():
            return refused(error.answer)
        case InvalidData():
            return Misused(str(error))
        case UnreadableAnswer():
            return Unavailable(str(error))
        case RegistryUnavailable() | RegistryTimeout() if error.answer is not None:
            return Unavailable(f"The registry cannot do it now, try again: {error}{_outcome(error, writes=writes)}")
        case RegistryUnavailable() | RegistryTimeout():
            asks = "does it run, and is --url (MCP_MESH_REGISTRY_URL) right?"
            return Unavailable(f"The registry does not answer: {error}; {asks}{_outcome(error, writes=writes)}")
        case _:
            return Trouble(str(error))


def _outcome(error: "RegistryUnavailable | RegistryTimeout", *, writes: bool) -> str:
    unknown = writes and error.outcome == "unknown"
    return " It may have been done all the same, so look before you repeat it" if unknown else ""


def refused(answer: Mapping[str, Any]) -> Trouble:
    """Return what a refusal means here."""
    code = str(answer.get("error"))
    kind = NotThere if code in _NOBODY else Unavailable if code in _LATER else Trouble
    return kind(reason_of(answer))


def reason_of(answer: Mapping[str, Any]) -> str:
    """Return why something was refused, and what to do, in one line."""
    if answer.get("error") == "unauthorized":
        return "The registry asks for a token: give the right one as --token or in MCP_MESH_REGISTRY_TOKEN"
    if answer.get("error") == "validation_failed" and answer.get("details"):
        return "; ".join(map(_problem, answer["details"]))
    return str(answer.get("message") or answer.get("error"))


def _problem(detail: Mapping[str, Any]) -> str:
    field, problem = str(detail.get("field")), str(detail.get("problem"))
    return problem if problem.endswith(f": {field}") else f"{field}: {problem}"


def success(answer: "T | Refusal | Offline") -> T:
    """Return an answer that is no refusal; tell on standard error where it may be old. Raises Trouble for a refusal."""
    read = cast("Mapping[str, Any]", answer)
    if "error" in read:
        raise refused(read)
    if "stale_seconds" in read:
        click.echo(f"Warning: the registry cannot be fresh now; this may be {read['stale_seconds']} s old", err=True)
    return cast("T", answer)
