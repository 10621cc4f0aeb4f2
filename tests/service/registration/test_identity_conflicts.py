"""Identity conflicts are counted one by one, and logged once a minute for each id."""

import pytest
from structlog.testing import capture_logs

from registry.model.registration.parse import parse_registration
from registry.service.registration.identity_conflicts import IdentityConflictReporter
from registry.store.agents import IdentityConflict

REPLACED = IdentityConflict("default", "http://old:1/mcp")


def test_an_id_is_logged_once_a_minute_with_the_number_of_its_conflicts() -> None:
    """A conflict of another id is logged at once; each conflict is counted."""
    now, counted = [0.0], list[int]()
    reporter = IdentityConflictReporter(lambda: counted.append(1), lambda: now[0])
    first, second = (parse_registration({"id": each, "endpoint": "http://new:1/mcp"}) for each in ("a", "b"))

    with capture_logs() as logs:
        for second_of_test, registration in ((0, first), (1, first), (59, first), (59.5, second), (60, first)):
            now[0] = second_of_test
            reporter.report(registration, REPLACED)

    assert [(entry["id"], entry["conflicts"]) for entry in logs] == [("a", 1), ("b", 1), ("a", 3)]
    assert len(counted) == 5


def test_the_logged_ids_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, the id with the oldest conflict is logged again."""
    monkeypatch.setattr("registry.service.registration.identity_conflicts._MAX_IDS", 2)
    reporter = IdentityConflictReporter(lambda: None, lambda: 0.0)

    with capture_logs() as logs:
        for agent_id in ("a", "b", "c", "a"):
            reporter.report(parse_registration({"id": agent_id, "endpoint": "http://new:1/mcp"}), REPLACED)

    assert [entry["id"] for entry in logs] == ["a", "b", "c", "a"]
