"""The tables leave nothing out: each script has one, with each reply, event and write of its header."""

import pytest

from tests.lua import (
    test_drain,
    test_end_self_preservation,
    test_heartbeat,
    test_init_log,
    test_invalidate_timeline,
    test_leader,
    test_new_timeline,
    test_probe,
    test_register,
    test_repair,
    test_repair_clock_rollback,
    test_restore,
    test_save_resolution,
    test_sweep,
    test_unregister,
)
from tests.lua.script_harness import ErrorReply, ScriptCase, declared_writes, key_name
from tests.support.lua_headers import SCRIPTS, read_header

TABLES = [
    *(test_drain.ROWS, test_heartbeat.ROWS, test_leader.ROWS, test_repair.ROWS, test_init_log.ROWS),
    *(
        test_probe.ROWS,
        test_register.ROWS,
        test_end_self_preservation.ROWS,
        test_new_timeline.ROWS,
        test_restore.ROWS,
        test_repair_clock_rollback.ROWS,
    ),
    *(test_invalidate_timeline.ROWS, test_sweep.ROWS, test_save_resolution.ROWS, test_unregister.ROWS),
]


def rows_of(script: str) -> list[ScriptCase]:
    """Every row for one script."""
    return [row for table in TABLES for row in table if row.script == script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_word_of_a_reply_stands_in_a_row(script: str) -> None:
    """And no row expects a word that the header does not know; Error rows are Redis' own."""
    said = {word for row in rows_of(script) if not isinstance(row.reply, ErrorReply) for word in row.reply}

    known = read_header(script).reply_words
    assert known <= said
    assert {row.reply[0] for row in rows_of(script) if not isinstance(row.reply, ErrorReply)} <= known


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_event_stands_in_a_row(script: str) -> None:
    """And no row expects one that the header does not know."""
    events = {(str(entry["kind"]), str(entry["reason"])) for row in rows_of(script) for entry in row.log}

    assert events == set(read_header(script).emits)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_write_stands_in_a_row(script: str) -> None:
    """What the header says is written is seen to change; that nothing else does, each row checks for itself."""
    changed = {key_name(cell) for row in rows_of(script) for cell, value in row.after.items()}
    if any(row.log for row in rows_of(script)):
        changed |= {"log", "version"}

    assert changed == declared_writes(script)


def test_promises_are_told_once() -> None:
    """Two rows of one table with one name would hide each other."""
    for table in TABLES:
        names = [(row.script, row.description) for row in table]
        assert sorted(set(names)) == sorted(names)
