"""The tables of leader_acquire.lua, leader_renew.lua and leader_resign.lua."""

import pytest

from tests.lua.script_harness import Expected, MsAfterCall, MsAfterStart, ScriptCase, ScriptHarness

ME = '{"instance":"me","host":"h 1","pid":1}'
OURS = f"3 7 1700000000000 {ME}"
THEIRS = '3 7 1700000000000 {"instance":"other","host":"h","pid":2}'


def acquire(
    description: str,
    *,
    leader: str | None,
    expired_lock: str,
    epoch: str | MsAfterStart | None = "7",
    acquired: str | MsAfterStart | MsAfterCall | None = MsAfterCall(),  # noqa: B008 - frozen
) -> ScriptCase:
    """Return a row with one attempt; `acquired` is the new epoch, None if another replica holds the lock."""
    lock: Expected = ("0 ", acquired or "", " ", MsAfterCall(), f" {ME}")
    return ScriptCase(
        description=description,
        script="leader_acquire",
        args={"holder": ME, "expired_lock": expired_lock},
        before={"leader": leader, "epoch": epoch},
        reply=("held", leader or "") if acquired is None else ("acquired", acquired, lock),
        after={} if acquired is None else {"leader": lock, "epoch": acquired},
    )


def renew(
    description: str, *, leader: str | None, own_lock: str = OURS, epoch: str | None = "7", now: str | None
) -> ScriptCase:
    """Return a row with one renewal; `now` is the lock after it, None if it is lost."""
    return ScriptCase(
        description=description,
        script="leader_renew",
        args={"own_lock": own_lock},
        before={"leader": leader, "epoch": epoch},
        reply=("lost", leader or "") if now is None else ("renewed", now),
        after={} if now is None else {"leader": now},
    )


def resign(description: str, *, leader: str | None, own_lock: str = OURS, resigned: bool) -> ScriptCase:
    """Return a row with one resignation."""
    return ScriptCase(
        description=description,
        script="leader_resign",
        args={"own_lock": own_lock},
        before={"leader": leader, "epoch": "7"},
        reply=("resigned",) if resigned else ("lost",),
        after={"leader": None} if resigned else {},
    )


ROWS = [
    acquire(
        "the first leader has the time as its epoch, which no lost epoch can equal",
        leader=None,
        epoch=None,
        expired_lock="",
    ),
    acquire("each leader has a higher epoch", leader=None, expired_lock=""),
    acquire(
        "an epoch ahead of the clock is raised by one",
        leader=None,
        epoch=MsAfterStart(60_000),
        expired_lock="",
        acquired=MsAfterStart(60_001),
    ),
    acquire("a lock is held", leader=THEIRS, expired_lock="", acquired=None),
    acquire(
        "a lock that was renewed since it was read is held",
        leader=THEIRS,
        expired_lock=THEIRS.replace("3", "2", 1),
        acquired=None,
    ),
    acquire("a lock that is not renewed is taken over", leader=THEIRS, expired_lock=THEIRS),
    acquire("a lock that was deleted since it was read is taken", leader=None, expired_lock=THEIRS),
    acquire("a lock with another text is not taken over", leader=OURS, expired_lock=THEIRS, acquired=None),
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
    renew("the lock of another replica is lost", leader=THEIRS, now=None),
    renew("a deleted lock is lost", leader=None, now=None),
    renew("a lock with an outdated epoch is lost", leader=OURS, epoch="8", now=None),
    renew("a lock whose epoch is gone is lost", leader=OURS, epoch=None, now=None),
    renew("a lock with an invalid text is lost", leader="gibberish", own_lock="gibberish", now=None),
    resign("an own lock is deleted", leader=OURS, resigned=True),
    resign("the lock of another replica stays", leader=THEIRS, resigned=False),
    resign("a deleted lock stays deleted", leader=None, resigned=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_leader(row: ScriptCase, harness: ScriptHarness) -> None:
    """Every row passes on every kind of server."""
    await harness.run_case(row)
