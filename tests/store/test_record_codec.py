"""Decoding of hashes and log entries into the model, and errors for invalid ones."""

import pytest

from registry.store.record_codec import BadRecordError, decode_agent, decode_change, entry_version, to_mapping

SPEC = b'{"capabilities":[{"name":"x","version":"2.0"}],"endpoint":"http://a","labels":{"k":"v"},"namespace":"n"}'
HASH = {
    b"spec": SPEC,
    b"status": b"degraded",
    b"draining": b"1",
    b"version": b"1700000000001",
    b"spec_version": b"1700000000000",
    b"created": b"5",
    b"updated": b"6",
    b"timeout": b"60000",
    b"eviction": b"120000",
    b"later": b"a field of a later release",
}
META = {
    b"kind": b"modify",
    b"reason": b"degraded",
    b"prev": b"1700000000000",
    b"id": b"a",
    b"heartbeat": b"1699999999999",
    b"status_before": b"healthy",
}


def entry(fields: dict[bytes, bytes], entry_id: bytes = b"1700000000001-0") -> list[object]:
    """Return an entry as XRANGE returns it."""
    return [entry_id, [part for pair in fields.items() for part in pair]]


def test_an_agent_is_decoded_completely() -> None:
    """The fields for filters come from its spec; fields of later releases are ignored."""
    agent = decode_agent("a", HASH)

    assert (agent.id, agent.spec, agent.status, agent.draining) == ("a", SPEC, "degraded", True)
    assert (agent.version, agent.spec_version) == (1_700_000_000_001, 1_700_000_000_000)
    assert (agent.created, agent.updated, agent.timeout, agent.eviction) == (5, 6, 60_000, 120_000)
    assert (agent.indexed.namespace, agent.indexed.labels) == ("n", {"k": "v"})
    (capability,) = agent.indexed.capabilities
    assert (capability.name, capability.version, capability.stability) == ("x", "2.0", "stable")


def test_an_agent_drains_only_with_the_value_1() -> None:
    """Any other value means in service."""
    assert not decode_agent("a", HASH | {b"draining": b"0"}).draining


@pytest.mark.parametrize("field", [name for name in HASH if name != b"later"])
def test_an_agent_without_a_field_is_a_bad_record(field: bytes) -> None:
    """The error names its id."""
    with pytest.raises(BadRecordError, match="agent 'a'"):
        decode_agent("a", {name: value for name, value in HASH.items() if name != field})


@pytest.mark.parametrize(
    "damage",
    [
        {b"status": b"removed"},
        {b"version": b"new"},
        {b"timeout": b"1e5"},
        {b"spec": b"{"},
        {b"spec": b"[]"},
        {b"spec": b'{"capabilities":[1]}'},
        {b"spec": b'{"namespace":"\xff"}'},
    ],
    ids=str,
)
def test_an_agent_with_a_damaged_field_is_a_bad_record(damage: dict[bytes, bytes]) -> None:
    """The error names its id too."""
    with pytest.raises(BadRecordError, match="agent 'a'"):
        decode_agent("a", HASH | damage)


def test_a_change_is_decoded_completely() -> None:
    """It has the agent after it, and the values that differed before."""
    change = decode_change(entry(META | HASH))

    assert (change.version, change.prev) == (1_700_000_000_001, 1_700_000_000_000)
    assert (change.kind, change.reason, change.heartbeat) == ("modify", "degraded", 1_699_999_999_999)
    assert change.agent == decode_agent("a", HASH)
    assert (change.status_before, change.draining_before, change.spec_before) == ("healthy", None, None)


def test_a_value_that_did_not_differ_is_none() -> None:
    """A missing heartbeat is None too."""
    change = decode_change(
        entry(HASH | {b"kind": b"add", b"reason": b"registered", b"prev": b"0", b"id": b"a", b"heartbeat": b""})
    )

    assert (change.status_before, change.draining_before, change.spec_before, change.heartbeat) == (None,) * 4


def test_all_values_before_a_change_are_decoded() -> None:
    """Their fields end in `_before`."""
    change = decode_change(entry(META | HASH | {b"draining_before": b"0", b"spec_before": b"{}"}))

    assert (change.draining_before, change.spec_before) == (False, b"{}")
    assert decode_change(entry(META | HASH | {b"draining_before": b"1"})).draining_before is True


def test_the_first_entry_of_a_timeline_has_no_agent() -> None:
    """It has only a version and the one before it."""
    change = decode_change(entry({b"kind": b"new_timeline", b"reason": b"log_initialized", b"prev": b"3"}, b"4-0"))

    assert (change.version, change.prev, change.kind, change.agent) == (4, 3, "new_timeline", None)


@pytest.mark.parametrize("field", [b"kind", b"reason", b"prev", b"id", b"spec"])
def test_an_entry_without_a_field_is_a_bad_record(field: bytes) -> None:
    """The error names the id of the entry."""
    with pytest.raises(BadRecordError, match="log entry 1700000000001-0"):
        decode_change(entry({name: value for name, value in (META | HASH).items() if name != field}))


@pytest.mark.parametrize(
    "damage",
    [{b"kind": b"replace"}, {b"prev": b""}, {b"heartbeat": b"soon"}, {b"reason": b"\xff"}, {b"id": b"\xff"}],
    ids=str,
)
def test_an_entry_with_a_damaged_field_is_a_bad_record(damage: dict[bytes, bytes]) -> None:
    """The error names the id too."""
    with pytest.raises(BadRecordError, match="log entry"):
        decode_change(entry(META | HASH | damage))


def test_an_entry_with_an_odd_number_of_parts_is_a_bad_record() -> None:
    """Redis has none, but a fake of it might."""
    with pytest.raises(BadRecordError):
        decode_change([b"5-0", [b"kind"]])


def test_an_entry_with_an_invalid_id_is_a_bad_record() -> None:
    """The error names the id."""
    with pytest.raises(BadRecordError, match="log entry x-0"):
        decode_change(entry(META | HASH, b"x-0"))


def test_the_id_of_an_entry_contains_its_version() -> None:
    """It is `<version>-0`."""
    assert entry_version(b"1700000000001-0") == 1_700_000_000_001


def test_a_list_of_pairs_is_decoded() -> None:
    """HGETALL returns such a list."""
    assert to_mapping([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
    assert to_mapping([]) == {}
