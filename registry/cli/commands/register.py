"""`mcp-mesh-registry register`: what stands in a file is registered, and told one by one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from registry.cli.connection import with_registry_client
from registry.cli.errors import EXIT_FAILED, CommandError, RegistryWriteCommand, format_refusal, unwrap
from registry.cli.manifest import MAX_FILE_BYTES, ManifestError, read_manifest, registration_id
from registry.cli.output.formats import is_document, output_option, print_document
from registry.cli.output.terminal_safe import escape_terminal

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

# What goes into one call: the registry takes 200 registrations and 1 MiB.
_MAX_AGENTS_PER_CALL, _MAX_CALL_BYTES = 200, 1024 * 1024 - 64

# Registered in our form it would be wired by other rules, and without its routes, until it next registers itself.
_MCPMESH_FORMAT_PROBLEM = (
    "this is an agent of a mesh SDK, which registers itself; what others register in its place is not the same"
)

_BATCH_INDEX = re.compile(r"\bagents\[\d+\]\.")

Registration = Mapping[str, Any]
Result = Mapping[str, Any]


@click.command(cls=RegistryWriteCommand)
@click.argument("file", type=click.File("rb"))
@output_option("json", "yaml", "name")
@with_registry_client
def register(registry: "SyncRegistryClient", *, file: IO[bytes], output: str | None) -> None:
    """Register the agents in FILE, or change what they say of themselves; `-` is standard input.

    JSON or YAML: one registration, a list, what `agents -o json` shows, or several documents. Each succeeds or fails
    alone. One with a `resource_version` only succeeds if the agent has not changed since.
    """
    name = getattr(file, "name", "<stdin>")
    try:
        found = read_manifest(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise CommandError(f"Cannot read {name}: {error.strerror}") from error
    except ManifestError as error:
        raise CommandError(f"Cannot read {name}: {error}; nothing was sent") from error
    results: list[Result] = []
    try:
        for at, registration, result in _register_all(registry, found):
            results.append(result)
            _report_result(at, registration, result, output)
    finally:
        if is_document(output) and results:
            alone = len(found) == 1
            print_document(results[0] if alone else _batch_document(results), output)
    if any("error" in result for result in results):
        raise click.exceptions.Exit(EXIT_FAILED)


def _batch_document(results: Sequence[Result]) -> dict[str, Any]:
    return {"status": "success", "results": results, "count": len(results)}


def _register_all(
    registry: "SyncRegistryClient", registrations: Sequence[Registration]
) -> Iterator[tuple[int, Registration, Result]]:
    """Give each registration with its place and what became of it, in the order of the file."""
    for batch in _batches(registrations):
        good = [registration for _, registration, refusal in batch if refusal is None]
        answers: Iterator[Result] = iter(_send_batch(registry, good) if good else ())
        for at, registration, refusal in batch:
            yield at, registration, refusal or _without_batch_index(next(answers))


def _send_batch(registry: "SyncRegistryClient", registrations: Sequence[Registration]) -> Sequence[Result]:
    if len(registrations) > 1:
        return unwrap(registry.register_many(registrations))["results"]
    answer = registry.register_agent(registrations[0])
    if "error" in answer and answer["error"] == "unauthorized":
        unwrap(answer)
    return [answer]


def _without_batch_index(result: Result) -> Result:
    """Return a result in which fields are those of the registration, wherever it stood in a call."""
    if "error" not in result:
        return result
    details = [{name: _BATCH_INDEX.sub("", str(text)) for name, text in detail.items()} for detail in result["details"]]
    return {**result, "message": _BATCH_INDEX.sub("", str(result["message"])), "details": details}


def _batches(registrations: Sequence[Registration]) -> Iterator[list[tuple[int, Registration, Result | None]]]:
    """Give as many at once as go into one call, each with what is wrong with it at first sight."""
    from mcp_mesh_client.validation import encode_json

    batch: list[tuple[int, Registration, Result | None]] = []
    size = 0
    for at, registration in enumerate(registrations):
        refusal = _check_locally(registration)
        length = 0 if refusal else len(encode_json(registration)) + 1
        if batch and (len(batch) == _MAX_AGENTS_PER_CALL or size + length > _MAX_CALL_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((at, registration, refusal))
        size += length
    yield batch


def _check_locally(registration: Registration) -> Result | None:
    """Return what the registry would say of what cannot be sent."""
    from mcp_mesh_client import InvalidData
    from mcp_mesh_client.validation import check_registration

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
    """Say what became of one, on standard error where it failed."""
    agent_id = escape_terminal(str(result.get("agent_id") or registration_id(registration) or "no id"))
    if "error" in result:
        click.echo(
            f"Error: registration {index + 1} ({agent_id:.253}): {escape_terminal(format_refusal(result))}", err=True
        )
    elif output == "name":
        click.echo(agent_id)
    elif output is None:
        click.echo(f"{agent_id} registered")
        for function, missing in (result.get("dependencies_unresolved") or {}).items():
            for capability, reason in missing.items():
                click.echo(escape_terminal(f"  {function} needs {capability}: {reason}"))
