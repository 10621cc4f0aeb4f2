"""The load of an agent, which each heartbeat contains: a number, or a function of the application that returns one."""

import logging
from collections.abc import Callable

from mcp_mesh_client.errors import InvalidData

_log = logging.getLogger("mcp_mesh_client")

_MAX_LOAD = 1e9

Load = float | Callable[[], float] | None


def check_load(value: object, field: str = "load") -> None:
    """Raise InvalidData unless a value is a load, or a function that returns one."""
    if callable(value):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_LOAD:
        expected = f"a number from 0 to {_MAX_LOAD:.0f}, or a function that returns one"
        raise InvalidData(field, f"{field}: expected {expected}, not {value!r:.100}")


class LoadReader:
    """Reads the load for each heartbeat; an error of the application's function does not end the heartbeats."""

    def __init__(self) -> None:
        self._last_error: str | None = None

    def read(self, load: Load, agent_id: str) -> float | None:
        """Return the load to send; None if there is none, or if its function fails. Each new error is logged once."""
        if not callable(load):
            return None if load is None else float(load)
        try:
            value = load()
            check_load(None if callable(value) else value)
        except Exception as error:  # noqa: BLE001 - an error of the application
            if str(error) != self._last_error:
                _log.error("load_failed id=%s error=%s", agent_id, error)
                self._last_error = str(error)
            return None
        self._last_error = None
        return float(value)
