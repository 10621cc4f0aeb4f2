"""The fixture that runs a fleet under load; the report of each test has its counts."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tests.support import fleet_under_load
from tests.support.fleet_under_load import FleetUnderLoad

FleetMaker = Callable[..., AbstractAsyncContextManager[FleetUnderLoad]]


@pytest.fixture
def run_fleet(record_property: Callable[[str, object], None]) -> FleetMaker:
    """Return `fleet_under_load`, which adds its counts to the report of the test."""
    return partial(fleet_under_load.fleet_under_load, on_counted=lambda tally: record_property("tally", dict(tally)))
