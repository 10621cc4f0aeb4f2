"""A backup as a file: what is written is what is read, or nothing is."""

from collections.abc import Callable

import msgspec
import orjson
import pytest

from registry.model.agent import StoredAgent
from registry.model.encoding.backup import BackupError, decode_backup, encode_backup, make_header
from tests.support.builders import an_agent

AGENTS = [
    StoredAgent(an_agent("a", 5, namespace="n"), 1234),
    StoredAgent(an_agent("b", 6, "pending", annotations={"text": "\u00e9\u2028"}), None),
]
TOP = make_header("mesh", "0123456789abcdef", 7, 1_795_000_000_000, len(AGENTS))
LINES = [*encode_backup(TOP, AGENTS)]


def test_what_is_written_is_read() -> None:
    """To the byte of each spec; only the versions, which mean nothing elsewhere, are left behind."""
    top, agents = decode_backup(LINES)

    assert top == TOP
    assert agents == [
        StoredAgent(msgspec.structs.replace(held.agent, version=0, spec_version=0), held.heartbeat) for held in AGENTS
    ]


def test_a_line_can_be_read_by_people_and_tools() -> None:
    """It is JSON, the spec within it too."""
    line = orjson.loads(LINES[1])

    assert line["spec"]["namespace"] == "n"
    assert (line["id"], line["status"], line["heartbeat"]) == ("a", "healthy", 1234)


CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "nothing": (lambda _: [], "line 1 is not a backup header"),
    "no heading": (lambda lines: lines[1:], "line 1 is not a backup header"),
    "another product's": (lambda lines: [lines[0].replace(b"mcp-mesh-registry", b"etcd"), *lines[1:]], "product etcd"),
    "a format to come": (lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]], "format 2;"),
    "cut at a line": (lambda lines: lines[:-1], "header says 2 agents, found 1"),
    "cut within a line": (lambda lines: [*lines[:-1], lines[-1][:40]], "line 3 is not an agent"),
    "a status nobody has": (
        lambda lines: [*lines[:-1], lines[-1].replace(b"pending", b"well")],
        "line 3 is not an agent",
    ),
    "a spec that is none": (lambda lines: [*lines[:-1], lines[-1].replace(b'"spec":{', b'"spec":[{')], "line 3"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
def test_what_is_no_whole_backup_is_refused(change: Callable[[list[bytes]], list[bytes]], says: str) -> None:
    """By its line, before anything of it is used."""
    with pytest.raises(BackupError, match=says):
        decode_backup(change(LINES))
