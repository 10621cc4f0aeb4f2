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
    """Provide what raises a fleet, `fleet_under_load.a_fleet`; what it counted is shown when all tests are done."""
    return partial(fleet_under_load.fleet_under_load, tallied=lambda tally: record_property("tally", asdict(tally)))
