"""`mcp-mesh-registry backup`, `restore` and `doctor`: what an operator does to a mesh as a whole."""

import asyncio
import gzip
import os
import sys
import tempfile
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from registry.errors import RegistryError, StartupError

if TYPE_CHECKING:
    from registry.config.settings import Settings
    from registry.store.integrity import IntegrityReport

# Everything that takes time to import is imported when the command runs, so that --help answers at once.
# ruff: noqa: PLC0415

T = TypeVar("T")

_MAX_PRINTED_NAMES = 20

_redis_url_option = click.option("--redis-url", help="Redis of the mesh; the embedded one unless given. [REDIS_URL]")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_redis_url_option
def backup(file: Path, redis_url: str | None) -> None:
    """Write every agent, as of one version, to FILE: packed where its name ends in .gz, `-` for standard output.

    FILE is there whole or not at all. The registry may be busy meanwhile.
    """
    from registry.maintenance import take_backup
    from registry.model.encoding.backup import encode_backup

    settings = _read_settings(redis_url)
    top, agents = _run_or_exit(take_backup(settings))
    try:
        _write_atomically(file, encode_backup(top, agents))
    except OSError as error:
        raise click.ClickException(f"Cannot write {file}: {error.strerror}") from error
    click.echo(f"{top.agents} agents of mesh {top.mesh} at version {top.version}: {file}", err=True)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_redis_url_option
def restore(file: Path, redis_url: str | None) -> None:
    """Put the agents of a backup back that are not there; those that are there are newer, and stay.

    A new history begins, above every version there was: replicas fill their caches anew and watches list again. An
    agent has its own timeout to send a heartbeat. Doing it twice is doing it once.
    """
    from registry.maintenance import restore as put_back
    from registry.model.encoding.backup import BackupError, decode_backup

    settings = _read_settings(redis_url)
    try:
        top, agents = decode_backup(_read_backup_file(file).splitlines())
    except (OSError, EOFError, gzip.BadGzipFile, BackupError) as error:
        raise click.ClickException(f"Cannot read {file}: {error}; nothing was changed") from error
    if top.mesh != settings.mesh:
        click.echo(f"The backup is of mesh {top.mesh}; its agents go into mesh {settings.mesh}", err=True)
    begun, done = _run_or_exit(put_back(settings, top, agents))
    click.echo(
        f"{done.restored} agents restored, {done.skipped} were there and stay; history begins at version {begun}"
    )


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@_redis_url_option
def doctor(*, repair: bool, redis_url: str | None) -> None:
    """Look through everything the mesh has in Redis. The status is 0 if nothing is wrong, or everything was mended."""
    from registry.maintenance import check_integrity

    warnings, found, mended = _run_or_exit(check_integrity(_read_settings(redis_url), repair=repair))
    for warning in warnings:
        click.echo(f"server   {warning}")
    for line in _describe_diagnosis(found):
        click.echo(line)
    if mended is not None:
        click.echo(
            f"mended   {mended.orphaned} leftovers and {mended.deleted} damaged records removed, "
            f"{mended.rescheduled} agents given a deadline; a new history begins"
        )
    sound = found.is_consistent or mended is not None
    if found.is_consistent:
        click.echo(f"sound    {found.agents} agents, nothing to mend")
    elif not sound:
        click.echo("         run again with --repair to mend it; agents whose record is removed register anew")
    raise click.exceptions.Exit(0 if sound and not warnings else 1)


def _describe_diagnosis(diagnosis: "IntegrityReport") -> Iterable[str]:
    for problem in diagnosis.problems:
        yield f"mesh     {problem}"
    for what, says, names in (
        ("agent", "a deadline or heartbeat of nobody", diagnosis.orphaned),
        ("agent", "an agent that no sweep would look at", diagnosis.without_deadline),
        ("agent", "a damaged record, in no list", tuple(diagnosis.unreadable)),
        ("edge", "a required dependency of nobody", diagnosis.orphaned_edges),
    ):
        for name in names[:_MAX_PRINTED_NAMES]:
            yield f"{what:<8} {name!r}: {says}"
        if len(names) > _MAX_PRINTED_NAMES:
            yield f"{what:<8} {len(names) - _MAX_PRINTED_NAMES} more: {says}"


def _read_settings(redis_url: str | None) -> "Settings":
    from registry.config.env import load_settings
    from registry.telemetry.logs import configure_logs

    try:
        settings, _ = load_settings(os.environ, redis_url=redis_url, log_level="warning")
    except StartupError as error:
        raise click.ClickException(str(error)) from error
    configure_logs(settings.log_level, settings.log_format)
    return settings


def _run_or_exit(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(coroutine)
    except RegistryError as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        raise click.ClickException(f"{error}{cause}") from error


def _write_atomically(file: Path, lines: Iterable[bytes]) -> None:
    """Write beside the file, then put it in its place."""
    if str(file) == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return
    handle, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            if file.suffix == ".gz":
                with gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as packed:
                    packed.writelines(lines)
            else:
                out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _read_backup_file(file: Path) -> bytes:
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
