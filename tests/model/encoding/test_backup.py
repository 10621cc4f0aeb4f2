"""The backup format: a backup is decoded exactly as encoded, or not at all."""

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
HEADER = make_header("mesh", "0123456789abcdef", 7, 1_795_000_000_000, len(AGENTS))
LINES = [*encode_backup(HEADER, AGENTS)]


def test_a_backup_is_decoded_as_it_was_encoded() -> None:
    """Each spec stays the same byte for byte; only versions are dropped, which have no meaning in another mesh."""
    header, agents = decode_backup(LINES)

    assert header == HEADER
    assert agents == [
        StoredAgent(msgspec.structs.replace(stored.agent, version=0, spec_version=0), stored.heartbeat)
        for stored in AGENTS
    ]


def test_each_line_is_json() -> None:
    """The spec inside it is JSON too, so people and tools can read it."""
    line = orjson.loads(LINES[1])

    assert line["spec"]["namespace"] == "n"
    assert (line["id"], line["status"], line["heartbeat"]) == ("a", "healthy", 1234)


DAMAGED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "nothing": (lambda _: [], "line 1 is not a backup header"),
    "no header": (lambda lines: lines[1:], "line 1 is not a backup header"),
    "another product's": (lambda lines: [lines[0].replace(b"mcp-mesh-registry", b"etcd"), *lines[1:]], "product etcd"),
    "a later format": (lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]], "format 2;"),
    "cut at a line": (lambda lines: lines[:-1], "header says 2 agents, found 1"),
    "cut within a line": (lambda lines: [*lines[:-1], lines[-1][:40]], "line 3 is not an agent"),
    "an unknown status": (
        lambda lines: [*lines[:-1], lines[-1].replace(b"pending", b"well")],
        "line 3 is not an agent",
    ),
    "a spec that is none": (lambda lines: [*lines[:-1], lines[-1].replace(b'"spec":{', b'"spec":[{')], "line 3"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_an_incomplete_backup_is_rejected(damage: Callable[[list[bytes]], list[bytes]], message: str) -> None:
    """The error names the line, and no agent is returned."""
    with pytest.raises(BackupError, match=message):
        decode_backup(damage(LINES))
