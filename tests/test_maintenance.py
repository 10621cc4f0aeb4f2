"""A backup reads all agents, however long this takes."""

from collections.abc import Callable
from typing import cast

import pytest

from registry import maintenance
from registry.cache.reflector import LogGap, Reflector
from registry.cache.view import View
from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.maintenance import take_backup
from registry.model.change import LogPosition
from registry.store.agents import RegistrationWrite
from registry.store.store import Store
from tests.support.builders import a_spec

AGENTS = 1200


async def test_the_number_of_agents_read_is_reported(store: Store, settings: Settings) -> None:
    """After each slice, and the last time with all agents."""
    await store.change_log.open()
    for number in range(AGENTS):
        await store.agents.register(RegistrationWrite(f"a{number}", a_spec("a"), 60_000, 120_000))
    reported: list[int] = []

    header, agents = await take_backup(settings, reported.append)

    assert header.agents == len([*agents]) == reported[-1] == AGENTS
    assert reported == sorted(reported)
    assert len(reported) > 1


class TrimmedReflector:
    """A reflector of a mesh whose log is trimmed during the first `gaps` scans."""

    def __init__(self, gaps: int) -> None:
        self.gaps = gaps

    async def fill(self, _on_progress: Callable[[int], None]) -> View:
        """Return a view, or raise LogGap."""
        self.gaps -= 1
        if self.gaps >= 0:
            raise LogGap("trimmed")
        return View(LogPosition(1, "timeline"))


async def test_a_backup_is_attempted_again_if_the_log_was_trimmed() -> None:
    """The error names the setting after some attempts."""
    view = await maintenance._fill(cast("Reflector", TrimmedReflector(maintenance._MAX_FILLS - 1)), lambda _: None)
    assert view.version == 1

    with pytest.raises(StoreUnavailable, match="REGISTRY_WATCH_HISTORY"):
        await maintenance._fill(cast("Reflector", TrimmedReflector(maintenance._MAX_FILLS)), lambda _: None)
