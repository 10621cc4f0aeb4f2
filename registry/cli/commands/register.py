"""The command `mcp-mesh-registry register`, which registers the agents of a file."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import click

from registry.cli.connection import SyncRegistryClient, report_connection_state, with_registry_client
from registry.cli.errors import (
    EXIT_FAILED,
    CommandError,
    RegistryWriteCommand,
    UsageError,
    format_error_response,
    unwrap,
)
from registry.cli.manifest import MAX_FILE_BYTES, ManifestError, read_manifest, registration_id
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.terminal_safe import escape_terminal

# The registry accepts 200 registrations and 1 MiB in one call.
_MAX_AGENTS_PER_CALL, _MAX_CALL_BYTES = 200, 1024 * 1024 - 64
_MAX_AGENTS_WITH_HEARTBEATS = 1_000

# Registered in the native format, the agent would have no routes, and its dependencies would resolve by other rules,
# until it registers itself again.
_MCPMESH_FORMAT_PROBLEM = "this agent registers itself with the mcp-mesh SDK and cannot be registered from a file"

_BATCH_INDEX = re.compile(r"\bagents\[\d+\]\.")

Registration = Mapping[str, Any]
Result = Mapping[str, Any]


@click.command(cls=RegistryWriteCommand)
@click.argument("file", type=click.File("rb"))
@click.option("--keep", is_flag=True, help="Send heartbeats for the agents until Ctrl-C, then unregister them.")
@output_option("json", "yaml", "name")
@with_registry_client
def register(registry: SyncRegistryClient, *, file: IO[bytes], keep: bool, output: str | None) -> None:
    """Register the agents in FILE, or update their registrations; `-` is standard input.

    JSON or YAML: one registration, a list, the output of `agents -o json`, or several documents. Each registration
    succeeds or fails on its own. A registration with a `resource_version` succeeds only if the agent has not changed.
    An agent expires unless it sends heartbeats; `--keep` sends them for agents that do not.
    """
    name = getattr(file, "name", "<stdin>")
    try:
        registrations = read_manifest(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise CommandError(f"Cannot read {name}: {error.strerror}") from error
    except ManifestError as error:
        raise CommandError(f"Cannot read {name}: {error}; nothing was sent") from error
    if keep:
        registrations = _with_thresholds(registrations)
    results: list[Result] = []
    registered: list[Registration] = []
    try:
        for index, registration, result in _register_all(registry, registrations):
            results.append(result)
            registered += [registration] if "error" not in result else []
            _report_result(index, registration, result, output)
    finally:
        if is_document(output) and results:
            is_single = len(registrations) == 1
            batch = {"status": "success", "results": results, "count": len(results)}
            print_document(results[0] if is_single else batch, output)
    if keep and registered:
        _keep_registered(registry, registered)
    elif registered and output is None:
        click.echo("An agent expires unless it sends heartbeats; register --keep sends them", err=True)
    if any("error" in result for result in results):
        raise click.exceptions.Exit(EXIT_FAILED)


def _with_thresholds(registrations: Sequence[Registration]) -> list[dict[str, Any]]:
    """Add the heartbeat interval and the thresholds that apply while this command sends the heartbeats."""
    from mcp_mesh_client.keep_alive import with_default_thresholds

    if len(registrations) > _MAX_AGENTS_WITH_HEARTBEATS:
        raise UsageError(f"--keep: at most {_MAX_AGENTS_WITH_HEARTBEATS:,} agents, not {len(registrations):,}")
    return [with_default_thresholds(registration) for registration in registrations]


def _keep_registered(registry: SyncRegistryClient, registrations: Sequence[Registration]) -> None:
    """Send the heartbeats of agents until SIGINT or SIGTERM, then unregister them."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with report_connection_state(), contextlib.ExitStack() as stack:
        for registration in registrations:
            # The agent exists by now, so this registration must not be conditional.
            unconditional = {name: value for name, value in registration.items() if name != "resource_version"}
            stack.enter_context(registry.keep_alive(unconditional))
        agents = "1 agent" if len(registrations) == 1 else f"{len(registrations):,} agents"
        click.echo(f"Sending heartbeats of {agents} until Ctrl-C", err=True)
        stop.wait()


def _register_all(
    registry: SyncRegistryClient, registrations: Sequence[Registration]
) -> Iterator[tuple[int, Registration, Result]]:
    """Register all agents and yield each registration with its index and its result, in the order of the file."""
    for batch in _batches(registrations):
        valid = [registration for _, registration, error_result in batch if error_result is None]
        results: Iterator[Result] = iter(_send_batch(registry, valid) if valid else ())
        for index, registration, error_result in batch:
            yield index, registration, error_result or _without_batch_index(next(results))


def _send_batch(registry: SyncRegistryClient, registrations: Sequence[Registration]) -> Sequence[Result]:
    if len(registrations) > 1:
        return unwrap(registry.register_many(registrations))["results"]
    response = registry.register_agent(registrations[0])
    if "error" in response and response["error"] == "unauthorized":
        unwrap(response)
    return [response]


def _without_batch_index(result: Result) -> Result:
    """Return the result of one registration with field names relative to that registration, not to the batch."""
    lists = {
        key: [{name: _BATCH_INDEX.sub("", str(text)) for name, text in item.items()} for item in result[key]]
        for key in ("details", "warnings")
        if key in result
    }
    return {**result, "message": _BATCH_INDEX.sub("", str(result["message"])), **lists}


def _batches(registrations: Sequence[Registration]) -> Iterator[list[tuple[int, Registration, Result | None]]]:
    """Yield batches of registrations, each with its index and, if a local check fails, its error."""
    from mcp_mesh_client.request_validation import encode_json

    batch: list[tuple[int, Registration, Result | None]] = []
    size = 0
    for index, registration in enumerate(registrations):
        error_result = _check_locally(registration)
        length = 0 if error_result else len(encode_json(registration)) + 1
        if batch and (len(batch) == _MAX_AGENTS_PER_CALL or size + length > _MAX_CALL_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((index, registration, error_result))
        size += length
    yield batch


def _check_locally(registration: Registration) -> Result | None:
    """Return the error of a registration that cannot be sent, in the format of the registry; None if valid."""
    from mcp_mesh_client import InvalidData
    from mcp_mesh_client.request_validation import check_registration

    if registration.get("registration_format") is not None:
        return _validation_error("registration_format", _MCPMESH_FORMAT_PROBLEM)
    try:
        check_registration(registration, {})
    except InvalidData as error:
        return _validation_error(error.field, str(error).removeprefix(f"{error.field}: "))
    return None


def _validation_error(field: str, problem: str) -> Result:
    details = [{"field": field, "problem": problem}]
    return {"status": "error", "error": "validation_failed", "message": f"{field}: {problem}", "details": details}


def _report_result(index: int, registration: Registration, result: Result, output: str | None) -> None:
    """Print the result of one registration; failures and warnings go to standard error."""
    agent_id = escape_terminal(str(result.get("agent_id") or registration_id(registration) or "no id"))
    if "error" in result:
        click.echo(
            f"Error: registration {index + 1} ({agent_id:.253}): {escape_terminal(format_error_response(result))}",
            err=True,
        )
        return
    for warning in result.get("warnings", ()):
        hint = f"; did you mean {warning['did_you_mean']}?" if "did_you_mean" in warning else ""
        text = escape_terminal(f"{warning['field']}: {warning['problem']}{hint}")
        click.echo(f"Warning: registration {index + 1} ({agent_id:.253}): {text}", err=True)
    if output == "name":
        click.echo(agent_id)
    elif output is None:
        click.echo(f"{agent_id} registered")
        for function, unresolved in (result.get("dependencies_unresolved") or {}).items():
            for capability, reason in unresolved.items():
                click.echo(escape_terminal(f"  {function}: no provider for {capability}: {reason}"))
