"""Repairs the append-only file of the embedded server: after a power failure it may end in zeros or garbage."""

import datetime as dt
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from registry.errors import StartupError
from registry.store.embedded.binary import ServerBinary, child_environment

_FOLDER_NAME = "appendonlydir"
_MANIFEST_NAME = "appendonly.aof.manifest"
# Every server program is also the checker, if it is started under this name.
_CHECKER_NAME = "redis-check-aof"


class DamagedFileError(StartupError):
    """The embedded server rejects its append-only file."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"The append-only file in {data_dir / _FOLDER_NAME} is damaged, for example by a power failure; run "
            "`mcp-mesh-registry doctor --repair`, which copies it and removes its damaged end"
        )


@dataclass(frozen=True, slots=True)
class FileRepair:
    """The repair of an append-only file: the number of removed bytes, and the copy of the damaged file."""

    removed_bytes: int
    copy: Path


def is_damage_report(server_log: str) -> bool:
    """Return whether a server logged that it rejects its append-only file; it then names the checker."""
    return "check-aof" in server_log


def repair_append_only_file(data_dir: Path, binary: ServerBinary) -> FileRepair:
    """Copy the append-only file, then remove everything from its first damaged entry on. No server may use it.

    Raises StartupError if the checker cannot repair it, and OSError if it cannot be copied.
    """
    folder = data_dir / _FOLDER_NAME
    size = _total_bytes(folder)
    now = dt.datetime.now(dt.UTC)
    copy = data_dir / f"{_FOLDER_NAME}.damaged-{now:%Y%m%dT%H%M%S.%f}"
    shutil.copytree(folder, copy)
    checked = subprocess.run(  # noqa: S603 - the program that find_server_binary selected
        [_CHECKER_NAME, "--fix", folder / _MANIFEST_NAME],
        executable=binary.path,
        env=child_environment(),
        input=b"y\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if checked.returncode:
        output = checked.stdout.decode(errors="replace").strip()
        raise StartupError(
            f"The append-only file in {folder} cannot be repaired: {output}; it is copied to {copy}. Move the data "
            "directory away and restore a backup"
        )
    return FileRepair(size - _total_bytes(folder), copy)


def _total_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
