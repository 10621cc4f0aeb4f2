"""Files with registrations: the forms they come in, and garbage."""

import json
from typing import Any

import pytest

from registry.cli.manifest import MAX_FILE_BYTES, ManifestError, read_manifest

A, B = {"id": "a", "endpoint": "http://a:1"}, {"agent_id": "b", "metadata": {"endpoint": "http://b:1"}}
YAML_A = "id: a\nendpoint: http://a:1\n"


@pytest.mark.parametrize(
    ("text", "found"),
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
    ids=["JSON", "list", "answer", "lines", "BOM", "YAML", "documents", "flow", "date", "anchor"],
)
def test_it_reads_the_forms_people_keep_them_in(text: str, found: list[dict[str, Any]]) -> None:
    """In the order of the file."""
    assert read_manifest(text.encode()) == found


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
def test_garbage_is_told_for_what_it_is(raw: bytes, problem: str) -> None:
    """In one line; nothing of it is carried out."""
    with pytest.raises(ManifestError, match=problem) as bad:
        read_manifest(raw)

    assert "\n" not in str(bad.value)


def test_a_bomb_of_yaml_is_not_written_out() -> None:
    """A few hundred bytes of anchors stand for billions of values."""
    lines = ["id: a", "l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{at}: &l{at} [{', '.join([f'*l{at - 1}'] * 10)}]" for at in range(1, 12)]

    with pytest.raises(ManifestError, match="expanded"):
        read_manifest("\n".join(lines).encode())


def test_what_holds_itself_is_no_registration() -> None:
    """YAML can say so, JSON could not."""
    with pytest.raises(ManifestError, match="nested too deeply"):
        read_manifest(b"id: a\nme: &me [*me]\n")


def test_a_file_has_a_largest_size() -> None:
    """Longer ones are to be split."""
    with pytest.raises(ManifestError, match="larger than 64 MiB"):
        read_manifest(b" " * (MAX_FILE_BYTES + 1))
