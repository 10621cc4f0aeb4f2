"""The tables are complete: each script has one, with each reply, event and write of its header."""

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
    test_update_self_preservation,
)
from tests.lua.script_harness import DERIVED_KEYS, ErrorReply, ScriptCase, declared_writes, key_name
from tests.support.lua_headers import SCRIPTS, read_header

TABLES = [
    *(test_drain.ROWS, test_heartbeat.ROWS, test_leader.ROWS, test_repair.ROWS, test_init_log.ROWS),
    *(
        test_probe.ROWS,
        test_register.ROWS,
        test_end_self_preservation.ROWS,
        test_update_self_preservation.ROWS,
        test_new_timeline.ROWS,
        test_restore.ROWS,
        test_repair_clock_rollback.ROWS,
    ),
    *(test_invalidate_timeline.ROWS, test_sweep.ROWS, test_save_resolution.ROWS, test_unregister.ROWS),
]


def rows_of(script: str) -> list[ScriptCase]:
    """Return all rows of one script."""
    return [row for table in TABLES for row in table if row.script == script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_reply_word_is_in_a_row(script: str) -> None:
    """No row expects an outcome that the header does not list; error rows are replies of Redis itself."""
    replied = {word for row in rows_of(script) if not isinstance(row.reply, ErrorReply) for word in row.reply}

    listed = read_header(script).reply_words
    assert listed <= replied
    assert {row.reply[0] for row in rows_of(script) if not isinstance(row.reply, ErrorReply)} <= listed


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_event_is_in_a_row(script: str) -> None:
    """No row expects an event that the header does not list."""
    events = {(str(entry["kind"]), str(entry["reason"])) for row in rows_of(script) for entry in row.log}

    assert events == set(read_header(script).emits)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_write_is_in_a_row(script: str) -> None:
    """Each key that the header lists as written changes in a row; each row checks that no other key changes."""
    changed = {key_name(cell) for row in rows_of(script) for cell, value in row.after.items()}
    if any(row.log for row in rows_of(script)):
        changed |= {"log", "version"} | ({"log_bytes"} & declared_writes(script))

    assert changed == declared_writes(script) - {*DERIVED_KEYS}


def test_each_description_is_unique() -> None:
    """Rows of one table with the same description have the same test id."""
    for table in TABLES:
        names = [(row.script, row.description) for row in table]
        assert sorted(set(names)) == sorted(names)
