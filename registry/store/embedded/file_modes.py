"""Keeps the files of the embedded server from other users: they contain all agents."""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

_OWNED_NAMES = ("lock", "server.lock", "server.log", "address", "appendonlydir", "appendonlydir.damaged-*", "temp-*")
_DIRECTORY_MODE, _FILE_MODE = 0o700, 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def open_private(path: Path, mode: str) -> FileIO:
    """Open a file without a buffer; a new file is for its owner only."""
    return FileIO(path, mode, opener=lambda name, flags: os.open(name, flags, _FILE_MODE))


def restrict_to_owner(data_dir: Path) -> list[str]:
    """Make a data directory and the files of the server in it accessible for their owner only.

    Returns each corrected path with its previous mode, such as `lock 0644`. Files of others in the directory and
    symbolic links are unchanged. Raises OSError.
    """
    corrected = []
    for path in _server_files(data_dir):
        # The server of a killed registry may still replace its files.
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            wanted = _DIRECTORY_MODE if stat.S_ISDIR(mode) else _FILE_MODE
            if (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and mode & _OTHERS:
                path.chmod(wanted)
                corrected.append(f"{path.relative_to(data_dir)} {stat.S_IMODE(mode):04o}")
    return corrected


def _server_files(data_dir: Path) -> Iterator[Path]:
    yield data_dir
    for pattern in _OWNED_NAMES:
        for path in data_dir.glob(pattern):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from path.iterdir()
