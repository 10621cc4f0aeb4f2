"""Files with registrations: the supported formats, and invalid files."""

import json
from typing import Any

import pytest

from registry.cli.manifest import MAX_FILE_BYTES, ManifestError, read_manifest

A, B = {"id": "a", "endpoint": "http://a:1"}, {"agent_id": "b", "metadata": {"endpoint": "http://b:1"}}
YAML_A = "id: a\nendpoint: http://a:1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(A), [A]),
        (json.dumps([A, B]), [A, B]),
        (json.dumps({"agents": [A, B], "count": 2}), [A, B]),
        (json.dumps(A) + "\n" + json.dumps(B) + "\n", [A, B]),
        ("\ufeff" + json.dumps(A), [A]),
        (YAML_A, [A]),
        ("---\n" + YAML_A + "---\n- agent_id: b\n  metadata: {endpoint: 'http://b:1'}\n---\n", [A, B]),
        ("{id: a, endpoint: 'http://a:1'}", [A]),
        ("id: a\nmetadata: {since: 2024-01-01}\n", [{"id": "a", "metadata": {"since": "2024-01-01"}}]),
        ("one: &x {k: v}\nid: a\ntwo: *x\n", [{"one": {"k": "v"}, "id": "a", "two": {"k": "v"}}]),
    ],
    ids=["JSON", "list", "response", "lines", "BOM", "YAML", "documents", "flow", "date", "anchor"],
)
def test_a_manifest_is_json_or_yaml(text: str, expected: list[dict[str, Any]]) -> None:
    """The registrations are in the order of the file."""
    assert read_manifest(text.encode()) == expected


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "contains no registration"),
        (b"[]", "contains no registration"),
        (b"just words", "a registration is an object with an id and an endpoint, not 'just words'"),
        (b"[1]", "not 1"),
        (b'{"id": "a",', "as JSON: .*as YAML: "),
        (b'{"id": NaN}', "NaN is not valid JSON"),
        (b"a: [b\n", "as YAML: "),
        (b"\x00\x01\x02", "as YAML: "),
        (b"\xff\xfe", "not UTF-8: invalid start byte at byte 0"),
        (b"!!python/object/apply:os.system ['true']", "as YAML: could not determine a constructor"),
        (b"[" * 100_000, "nested too deeply|as YAML"),
        (b'{"a":' * 100_000, "nested too deeply|as YAML"),
        (json.dumps([A, B, A]).encode(), "registrations 1 and 3 have the same id 'a'"),
        (json.dumps([A, {**A, "id": None, "agent_id": "a"}]).encode(), "registrations 1 and 2 have the same id"),
    ],
)
def test_an_invalid_manifest_is_reported(raw: bytes, problem: str) -> None:
    """The error is one line, and no registration is sent."""
    with pytest.raises(ManifestError, match=problem) as bad:
        read_manifest(raw)

    assert "\n" not in str(bad.value)


def test_yaml_that_expands_to_a_huge_document_is_rejected() -> None:
    """A few hundred bytes of anchors stand for billions of values."""
    lines = ["id: a", "l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{at}: &l{at} [{', '.join([f'*l{at - 1}'] * 10)}]" for at in range(1, 12)]

    with pytest.raises(ManifestError, match="expanded"):
        read_manifest("\n".join(lines).encode())


def test_yaml_that_contains_itself_is_rejected() -> None:
    """An anchor can do that; JSON has no such document."""
    with pytest.raises(ManifestError, match="nested too deeply"):
        read_manifest(b"id: a\nme: &me [*me]\n")


def test_a_manifest_has_a_maximum_size() -> None:
    """Users must split larger files."""
    with pytest.raises(ManifestError, match="larger than 64 MiB"):
        read_manifest(b" " * (MAX_FILE_BYTES + 1))
