"""The commands `backup`, `restore` and `doctor`, which maintain all data of a mesh."""

import asyncio
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from registry.errors import RegistryError, StartupError

if TYPE_CHECKING:
    from registry.config.settings import Settings
    from registry.store.integrity_check import IntegrityReport

T = TypeVar("T")

_MAX_PRINTED_NAMES = 20
_PROGRESS_INTERVAL_S = 2.0

_redis_url_option = click.option("--redis-url", help="Redis of the mesh; default is the embedded server. [REDIS_URL]")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_redis_url_option
def backup(file: Path, redis_url: str | None) -> None:
    """Write every agent at one version to FILE; `-` is standard output, a name ending in .gz is compressed.

    The file is replaced atomically. The registry may run at the same time. Standard error shows the progress.
    """
    from registry.maintenance import take_backup
    from registry.model.encoding.backup import encode_backup

    settings = _read_settings(redis_url)
    header, agents = _run_or_exit(take_backup(settings, _ProgressPrinter("read")))
    try:
        _write_atomically(file, _count(encode_backup(header, agents), _ProgressPrinter("written")))
    except OSError as error:
        raise click.ClickException(f"Cannot write {file}: {error.strerror}") from error
    click.echo(f"{header.agents} agents of mesh {header.mesh} at version {header.version}: {file}", err=True)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@_redis_url_option
def restore(file: Path, redis_url: str | None) -> None:
    """Restore agents that are missing; existing agents are newer and are not overwritten.

    Starts a new timeline above every previous version: replicas refill their caches and watchers list again. Each
    restored agent has its own timeout to send a heartbeat. Repeating a restore changes no agent, but starts another
    timeline.
    """
    from registry.maintenance import restore as restore_agents
    from registry.model.encoding.backup import BackupError, decode_backup

    settings = _read_settings(redis_url)
    try:
        header, agents = decode_backup(_read_backup_file(file).splitlines())
    except (OSError, EOFError, gzip.BadGzipFile, BackupError) as error:
        raise click.ClickException(f"Cannot read {file}: {error}; nothing was changed") from error
    if header.mesh != settings.mesh:
        click.echo(f"The backup is of mesh {header.mesh}; its agents are restored into mesh {settings.mesh}", err=True)
    start_version, result = _run_or_exit(restore_agents(settings, header, agents))
    click.echo(
        f"{result.restored} agents restored, {result.skipped} already registered and unchanged; "
        f"new timeline starts at version {start_version}"
    )


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired.")
@_redis_url_option
def doctor(*, repair: bool, redis_url: str | None) -> None:
    """Check all data of the mesh in Redis. The exit code is 0 if no problem was found or all were repaired.

    With --repair, the append-only file of the embedded server is repaired first if the server rejects it.
    """
    from registry.maintenance import check_integrity, repair_embedded_file

    settings = _read_settings(redis_url)
    file_repair = _run_or_exit(repair_embedded_file(settings)) if repair else None
    if file_repair is not None:
        click.echo(
            f"store    damaged append-only file repaired: {file_repair.removed_bytes} bytes at its end removed; "
            f"copy of the damaged file: {file_repair.copy}"
        )
    warnings, report, repaired = _run_or_exit(check_integrity(settings, repair=repair))
    for warning in warnings:
        click.echo(f"server   {warning}")
    for line in _describe_problems(report):
        click.echo(line)
    if repaired is not None:
        click.echo(
            f"repaired {repaired.orphaned} orphaned entries and {repaired.deleted} damaged records removed, "
            f"{repaired.rescheduled} agents given a deadline; a new timeline starts"
        )
    is_consistent = report.is_consistent or repaired is not None
    if report.is_consistent:
        click.echo(f"ok       {report.agents} agents, no problems")
    elif not is_consistent:
        click.echo("         run again with --repair to repair; agents whose record is removed register again")
    raise click.exceptions.Exit(0 if is_consistent and not warnings else 1)


def _describe_problems(report: "IntegrityReport") -> Iterable[str]:
    for problem in report.problems:
        yield f"mesh     {problem}"
    for kind, problem, names in (
        ("agent", "deadline or heartbeat without an agent", report.orphaned),
        ("agent", "agent without a deadline, never expires", report.without_deadline),
        ("agent", "damaged record, not listed", tuple(report.unreadable)),
        ("edge", "required dependency without an agent", report.orphaned_edges),
        ("entry", "missed heartbeat without an agent", report.orphaned_missing),
        ("count", "healthy agents of this namespace are counted wrongly", tuple(report.miscounted)),
    ):
        for name in names[:_MAX_PRINTED_NAMES]:
            yield f"{kind:<8} {name!r}: {problem}"
        if len(names) > _MAX_PRINTED_NAMES:
            yield f"{kind:<8} {len(names) - _MAX_PRINTED_NAMES} more: {problem}"


class _ProgressPrinter:
    """Prints a number of agents on standard error, at most every two seconds."""

    def __init__(self, action: str) -> None:
        self._action = action
        self._due_at = time.monotonic() + _PROGRESS_INTERVAL_S

    def __call__(self, agents: int) -> None:
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + _PROGRESS_INTERVAL_S
            click.echo(f"{agents:,} agents {self._action}", err=True)


def _count(lines: Iterable[bytes], on_progress: Callable[[int], None]) -> Iterable[bytes]:
    """Yield the lines of a backup, whose first line is no agent, and report the number of agents so far."""
    for number, line in enumerate(lines):
        on_progress(number)
        yield line


def _read_settings(redis_url: str | None) -> "Settings":
    from registry.config.data_directory import find_shared_data_directory
    from registry.config.env import load_settings
    from registry.telemetry.logs import configure_logs

    try:
        settings, _ = load_settings(os.environ, [find_shared_data_directory], redis_url=redis_url, log_level="warning")
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
    """Write a file completely or not at all: write a temporary file, then rename it."""
    if str(file) == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return
    handle, temporary_name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    temporary = Path(temporary_name)
    try:
        with os.fdopen(handle, "wb") as out:
            if file.suffix == ".gz":
                with gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as compressed:
                    compressed.writelines(lines)
            else:
                out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _read_backup_file(file: Path) -> bytes:
    raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
