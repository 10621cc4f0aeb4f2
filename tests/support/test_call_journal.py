"""Tests of the journal's validators: each finds its violation and accepts a valid journal."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from registry.model.agent import Status
from registry.model.change import Change
from tests.support.builders import a_change, an_agent
from tests.support.call_journal import (
    BadResponse,
    CallJournal,
    ClientCall,
    ListMismatch,
    LiveAgentNotFound,
    Tolerances,
    VersionWentBack,
    WriteLost,
    WronglyDegraded,
    check_calls,
    overdue_agents,
)
from tests.support.watch_recorder import UnbrokenLog, Violation


def a_step(version: int, status: Status, reason: str, heartbeat: int | None) -> Change:
    """Return a log entry of agent `a`, whose timeout is 1,000 ms."""
    agent = msgspec.structs.replace(an_agent("a", version, status), timeout=1000)
    return Change(version, version - 1, "modify", reason, agent, heartbeat)


def a_log() -> list[Change]:
    """Return the log of an agent: registered at 11, heartbeat at 20, degraded at 1,030, unregistered at 1,040."""
    registered = a_step(11, "pending", "registered", None)
    removed = a_step(1040, "degraded", "unregistered", 20)
    return [
        a_change(10, "new_timeline"),
        msgspec.structs.replace(registered, kind="add", prev=10),
        msgspec.structs.replace(a_step(20, "healthy", "first_heartbeat", 20), prev=11),
        msgspec.structs.replace(a_step(1030, "degraded", "degraded", 20), prev=20),
        msgspec.structs.replace(removed, kind="remove", prev=1030),
    ]


REGISTERED = ClientCall("register", "a", "u", 1.0, 1.1, 200, 11)
HEARTBEAT = ClientCall("heartbeat", "a", "u", 1.2, 1.3, 200, server_time_ms=20)
LISTED = ClientCall("list", "", "u", 1.4, 1.5, 200, 20, listed_versions={"a": 20}, matches=lambda _agent: True)
UNREGISTERED = ClientCall("unregister", "a", "u", 2.0, 2.1, 200, 1040)
UNKNOWN = ClientCall("heartbeat", "a", "u", 2.2, 2.3, 404)
REFUSED = [ClientCall("heartbeat", "a", "u", at / 10, at / 10, 503) for at in range(14, 21)]
VALID = (REGISTERED, HEARTBEAT, LISTED, UNREGISTERED, UNKNOWN)


def check(
    calls: Sequence[ClientCall], log: Sequence[Change] = (), persistent_agents: Sequence[str] = ()
) -> Counter[str]:
    """Check the calls against a log; return how many events of each kind were late."""
    return check_calls(CallJournal(list(calls), set(persistent_agents)), [UnbrokenLog(log or a_log())], Tolerances())


def a_log_with(at: int, **fields: object) -> list[Change]:
    """Return the log with one entry changed."""
    log = a_log()
    log[at] = msgspec.structs.replace(log[at], **fields)
    return log


def test_a_valid_journal_passes() -> None:
    """A call to an unresponsive replica may have no response, and an agent within its timeout is not overdue."""
    check(VALID)
    no_response = ClientCall("register", "b", "dead", 1.0, 9.0, 0)
    check_calls(
        CallJournal([*VALID, no_response]), [UnbrokenLog(a_log())], Tolerances(unresponsive_urls=frozenset({"dead"}))
    )
    assert overdue_agents(UnbrokenLog(a_log()[:3]), {"a": 20}, 1100, 1) == []


def test_lateness_is_counted() -> None:
    """Of responses, of degradations, and of clients whose agents are degraded; an overdue agent is found."""
    late = ClientCall("list", "", "u", 1.0, 9.0, 0, timed_out=True)

    assert check(VALID) == {}
    assert check([*VALID, late]) == {"late responses": 1}
    assert check([], [*a_log()[:3], msgspec.structs.replace(a_log()[3], version=9000)]) == {"late degradations": 1}
    assert check(VALID, persistent_agents=["a"]) == {"late clients": 1}
    assert overdue_agents(UnbrokenLog(a_log()[:3]), {"a": 20}, 9000, 1) == ["a"]


@pytest.mark.parametrize(
    ("violation", "checked"),
    [
        (BadResponse, lambda: check([*VALID, replace(HEARTBEAT, status=0)])),
        (BadResponse, lambda: check([*VALID, replace(HEARTBEAT, status=500)])),
        (WriteLost, lambda: check([replace(REGISTERED, version=12)])),
        (WriteLost, lambda: check([replace(REGISTERED, agent_id="b")])),
        (WriteLost, lambda: check([replace(UNREGISTERED, version=1030)])),
        (WriteLost, lambda: check([replace(REGISTERED, version=1040)])),
        (VersionWentBack, lambda: check([UNREGISTERED, replace(LISTED, started=3.0, ended=3.1)])),
        (
            VersionWentBack,
            lambda: check_calls(CallJournal(), [UnbrokenLog(a_log()), UnbrokenLog(a_log())], Tolerances()),
        ),
        (ListMismatch, lambda: check([replace(LISTED, listed_versions={})])),
        (ListMismatch, lambda: check([replace(LISTED, listed_versions={"a": 11})])),
        (ListMismatch, lambda: check([replace(LISTED, version=9999)])),
        (WronglyDegraded, lambda: check([*VALID[:3], *REFUSED, *VALID[3:]], persistent_agents=["a"])),
        (WronglyDegraded, lambda: check([replace(HEARTBEAT, server_time_ms=500)])),
        (WronglyDegraded, lambda: check([], a_log_with(3, heartbeat=100))),
        (WronglyDegraded, lambda: check([], a_log_with(4, kind="modify", reason="degraded"))),
        (
            LiveAgentNotFound,
            lambda: check([REGISTERED, replace(UNKNOWN, started=1.2, ended=1.3), replace(REGISTERED, version=20)]),
        ),
    ],
)
def test_each_violation_is_found(violation: type[Violation], checked: Callable[[], None]) -> None:
    """The error has the class of the broken promise, and starts with its text."""
    with pytest.raises(violation) as caught:
        checked()

    assert str(caught.value).startswith(violation.promise)
