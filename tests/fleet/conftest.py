"""A fleet under load for each fault, and what it counted."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from functools import partial

import pytest

from tests.support import fleet_under_load
from tests.support.fleet_under_load import FleetUnderLoad

FleetMaker = Callable[..., AbstractAsyncContextManager[FleetUnderLoad]]


@pytest.fixture
def a_fleet(record_property: Callable[[str, object], None]) -> FleetMaker:
    """Return fleet_under_load; its counts are printed after the test run."""
    return partial(fleet_under_load.fleet_under_load, on_counted=lambda tally: record_property("tally", asdict(tally)))
