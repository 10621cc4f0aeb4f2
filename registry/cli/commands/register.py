"""`mcp-mesh-registry register`: what stands in a file is registered, and told one by one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from registry.cli.connection import calls_registry
from registry.cli.errors import Trouble, WritingCommand, reason_of, success
from registry.cli.exits import FAILED
from registry.cli.manifest import MOST_BYTES, BadFile, id_of, read_registrations
from registry.cli.output.formats import check_format, is_document, output_option, show_document
from registry.cli.output.terminal_safe import harmless

if TYPE_CHECKING:
    from mcp_mesh_client import SyncRegistryClient

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

# What goes into one call: the registry takes 200 registrations and 1 MiB.
_MOST, _LARGEST = 200, 1024 * 1024 - 64

# Registered in our form it would be wired by other rules, and without its routes, until it next registers itself.
_FLAT = "this is an agent of a mesh SDK, which registers itself; what others register in its place is not the same"

_PLACE = re.compile(r"\bagents\[\d+\]\.")

Registration = Mapping[str, Any]
Result = Mapping[str, Any]


@click.command(cls=WritingCommand)
@click.argument("file", type=click.File("rb"))
@output_option("json", "yaml", "name")
@calls_registry
def register(registry: "SyncRegistryClient", *, file: IO[bytes], output: str | None) -> None:
    """Register the agents in FILE, or change what they say of themselves; `-` is standard input.

    JSON or YAML: one registration, a list, what `agents -o json` shows, or several documents. Each succeeds or fails
    alone. One with a `resource_version` only succeeds if the agent has not changed since.
    """
    check_format(output)
    name = getattr(file, "name", "<stdin>")
    try:
        found = read_registrations(file.read(MOST_BYTES + 1))
    except OSError as error:
        raise Trouble(f"Cannot read {name}: {error.strerror}") from error
    except BadFile as error:
        raise Trouble(f"Cannot read {name}: {error}; nothing was sent") from error
    results: list[Result] = []
    try:
        for at, registration, result in _results(registry, found):
            results.append(result)
            _tell(at, registration, result, output)
    finally:
        if is_document(output) and results:
            alone = len(found) == 1
            show_document(results[0] if alone else _answer(results), output)
    if any("error" in result for result in results):
        raise click.exceptions.Exit(FAILED)


def _answer(results: Sequence[Result]) -> dict[str, Any]:
    return {"status": "success", "results": results, "count": len(results)}


def _results(
    registry: "SyncRegistryClient", found: Sequence[Registration]
) -> Iterator[tuple[int, Registration, Result]]:
    """Give each registration with its place and what became of it, in the order of the file."""
    for batch in _batches(found):
        good = [registration for _, registration, refusal in batch if refusal is None]
        answers: Iterator[Result] = iter(_registered(registry, good) if good else ())
        for at, registration, refusal in batch:
            yield at, registration, refusal or _of_itself(next(answers))


def _registered(registry: "SyncRegistryClient", good: Sequence[Registration]) -> Sequence[Result]:
    if len(good) > 1:
        return success(registry.register_many(good))["results"]
    answer = registry.register_agent(good[0])
    if "error" in answer and answer["error"] == "unauthorized":
        success(answer)
    return [answer]


def _of_itself(result: Result) -> Result:
    """Return a result in which fields are those of the registration, wherever it stood in a call."""
    if "error" not in result:
        return result
    details = [{name: _PLACE.sub("", str(text)) for name, text in detail.items()} for detail in result["details"]]
    return {**result, "message": _PLACE.sub("", str(result["message"])), "details": details}


def _batches(found: Sequence[Registration]) -> Iterator[list[tuple[int, Registration, Result | None]]]:
    """Give as many at once as go into one call, each with what is wrong with it at first sight."""
    from mcp_mesh_client.validation import body_bytes

    batch: list[tuple[int, Registration, Result | None]] = []
    size = 0
    for at, registration in enumerate(found):
        refusal = _refusal(registration)
        length = 0 if refusal else len(body_bytes(registration)) + 1
        if batch and (len(batch) == _MOST or size + length > _LARGEST):
            yield batch
            batch, size = [], 0
        batch.append((at, registration, refusal))
        size += length
    yield batch


def _refusal(registration: Registration) -> Result | None:
    """Return what the registry would say of what cannot be sent."""
    from mcp_mesh_client import InvalidData
    from mcp_mesh_client.validation import check_registration

    if registration.get("flat") is not None:
        return _bad("flat", _FLAT)
    try:
        check_registration(registration, {})
    except InvalidData as error:
        return _bad(error.field, str(error).removeprefix(f"{error.field}: "))
    return None


def _bad(field: str, problem: str) -> Result:
    details = [{"field": field, "problem": problem}]
    return {"status": "error", "error": "validation_failed", "message": f"{field}: {problem}", "details": details}


def _tell(at: int, registration: Registration, result: Result, output: str | None) -> None:
    """Say what became of one, on standard error where it failed."""
    agent_id = harmless(str(result.get("agent_id") or id_of(registration) or "no id"))
    if "error" in result:
        click.echo(f"Error: registration {at + 1} ({agent_id:.253}): {harmless(reason_of(result))}", err=True)
    elif output == "name":
        click.echo(agent_id)
    elif output is None:
        click.echo(f"{agent_id} registered")
        for function, missing in (result.get("dependencies_unresolved") or {}).items():
            for capability, reason in missing.items():
                click.echo(harmless(f"  {function} needs {capability}: {reason}"))
