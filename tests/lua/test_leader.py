"""The tables of leader_acquire.lua, leader_renew.lua and leader_resign.lua."""

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness

ME = '{"instance":"me","host":"h 1","pid":1}'
OURS = f"3 7 1700000000000 {ME}"
THEIRS = '3 7 1700000000000 {"instance":"other","host":"h","pid":2}'


def acquire(
    promise: str,
    *,
    leader: str | None,
    expired_lock: str,
    epoch: str | MsAfterStart | None = "7",
    acquired: str | MsAfterStart | MsAfterCall | None = MsAfterCall(),  # noqa: B008 - frozen
) -> ScriptCase:
    """One try; `acquired` is the new epoch, None where the lock is held."""
    lock: Expected = ("0 ", acquired or "", " ", MsAfterCall(), f" {ME}")
    return ScriptCase(
        description=promise,
        script="leader_acquire",
        args={"holder": ME, "expired_lock": expired_lock},
        before={"leader": leader, "epoch": epoch},
        reply=("held", leader or "") if acquired is None else ("acquired", acquired, lock),
        after={} if acquired is None else {"leader": lock, "epoch": acquired},
    )


def renew(
    promise: str, *, leader: str | None, own_lock: str = OURS, epoch: str | None = "7", now: str | None
) -> ScriptCase:
    """One renewal; `now` is the lock after it, None where it is lost."""
    return ScriptCase(
        description=promise,
        script="leader_renew",
        args={"own_lock": own_lock},
        before={"leader": leader, "epoch": epoch},
        reply=("lost", leader or "") if now is None else ("renewed", now),
        after={} if now is None else {"leader": now},
    )


def resign(promise: str, *, leader: str | None, own_lock: str = OURS, resigned: bool) -> ScriptCase:
    """One resignation."""
    return ScriptCase(
        description=promise,
        script="leader_resign",
        args={"own_lock": own_lock},
        before={"leader": leader, "epoch": "7"},
        reply=("resigned",) if resigned else ("lost",),
        after={"leader": None} if resigned else {},
    )


ROWS = [
    acquire(
        "who comes first leads under an epoch that no lost one can equal: the time",
        leader=None,
        epoch=None,
        expired_lock="",
    ),
    acquire("each leader has a higher epoch", leader=None, expired_lock=""),
    acquire(
        "an epoch ahead of the clock goes on by one",
        leader=None,
        epoch=MsAfterStart(60_000),
        expired_lock="",
        acquired=MsAfterStart(60_001),
    ),
    acquire("a lock is held", leader=THEIRS, expired_lock="", acquired=None),
    acquire(
        "a lock that moved since it was seen is held",
        leader=THEIRS,
        expired_lock=THEIRS.replace("3", "2", 1),
        acquired=None,
    ),
    acquire("a lock that stands still is taken over", leader=THEIRS, expired_lock=THEIRS),
    acquire("a lock that vanished since it was seen is taken", leader=None, expired_lock=THEIRS),
    acquire("a lock is not taken over by its own text elsewhere", leader=OURS, expired_lock=THEIRS, acquired=None),
    acquire(
        "an epoch of many digits is not rounded",
        leader=None,
        epoch="1700000000000000",
        expired_lock="",
        acquired="1700000000000001",
    ),
    renew("each renewal raises the counter", leader=OURS, now=OURS.replace("3", "4", 1)),
    renew(
        "a counter of many digits is not rounded",
        leader=f"1700000000000000 7 1 {ME}",
        own_lock=f"1700000000000000 7 1 {ME}",
        now=f"1700000000000001 7 1 {ME}",
    ),
    renew("somebody else's lock is lost", leader=THEIRS, now=None),
    renew("a deleted lock is lost", leader=None, now=None),
    renew("a lock under an epoch that moved on is lost", leader=OURS, epoch="8", now=None),
    renew("a lock whose epoch is gone is lost", leader=OURS, epoch=None, now=None),
    renew("a lock that nobody could have written is lost", leader="gibberish", own_lock="gibberish", now=None),
    resign("a lock that is ours is given up", leader=OURS, resigned=True),
    resign("somebody else's lock stays", leader=THEIRS, resigned=False),
    resign("a lock that is gone stays gone", leader=None, resigned=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_leader(row: ScriptCase, bench: ScriptHarness) -> None:
    """Every row holds on every kind of server."""
    await bench.run_case(row)
