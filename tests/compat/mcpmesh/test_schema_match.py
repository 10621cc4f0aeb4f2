"""What an output must be like: cell by cell as measured, and what nobody may do by what he sends."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.compat.mcpmesh.schema_match import SchemaMatcher
from registry.model.agent import Capability, decode_indexed_spec
from tests.support.builders import a_spec

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "schemas.json").read_text(encoding="utf-8"))
EXPECTED: dict[str, Any] = TABLE["expected"]
PROVIDED: dict[str, Any] = TABLE["provided"]
PASSES: dict[str, str] = TABLE["passes"]

CITY = EXPECTED["city_req"]


def hash_of(schema: Any) -> str:
    """Return a hash that two schemas share only if they are the same."""
    return hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()


def providing(schema: Any, **fields: Any) -> Capability:
    """Return a capability with this output; None tells none."""
    told = {} if schema is None else {"outputSchemaCanonical": schema, "outputSchemaHash": hash_of(schema)}
    (capability,) = decode_indexed_spec(a_spec(capabilities=[{"name": "c", **told, **fields}])).capabilities
    return capability


def need(mode: str, schema: Any) -> SchemaMatcher:
    """Return what judges by this schema."""
    return SchemaMatcher(mode, hash_of(schema), orjson.dumps(schema))


@pytest.mark.parametrize("mode", ["subset", "strict"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_schema_is_met_by_what_was_seen_to_meet_it(name: str, mode: str) -> None:
    """Each row of the table."""
    judge = need(mode, EXPECTED[name])

    met = [each for each, schema in PROVIDED.items() if judge.mismatch(providing(schema)) is None]

    row = PASSES[f"{name} {mode}"]
    assert met == [each for each, seen in zip(PROVIDED, row, strict=True) if seen == "1"]


def test_the_table_is_whole() -> None:
    """Two rows for each schema, a cell for each provider."""
    assert PASSES.keys() == {f"{name} {mode}" for name in EXPECTED for mode in ("subset", "strict")}


@pytest.mark.parametrize(
    ("expected", "given", "reason"),
    [
        (CITY, {"type": "object"}, "output has no field city"),
        (CITY, PROVIDED["city_int"], "output.city is integer, not string"),
        (EXPECTED["nest"], PROVIDED["nest_bad"], "output.a has no field b"),
        (EXPECTED["arrobj"], PROVIDED["arrobj_bad"], "output[] has no field x"),
        (EXPECTED["arr"], PROVIDED["arr_noitems"], "output.l does not declare its item type"),
        (EXPECTED["str"], PROVIDED["int2"], "output is integer, not string"),
    ],
)
def test_the_reason_names_the_place(expected: Any, given: Any, reason: str) -> None:
    """Traces and the error of an unresolved dependency show it."""
    assert need("subset", expected).mismatch(providing(given)) == reason


def test_strict_takes_the_same_hash_and_nothing_else() -> None:
    """Whatever the schemas are; without a hash nothing passes."""
    assert SchemaMatcher("strict", hash_of(CITY), b"").mismatch(providing(CITY)) is None
    for judge, capability in (
        (need("strict", CITY), providing(None)),
        (SchemaMatcher("strict", "", orjson.dumps(CITY)), providing(CITY)),
        (SchemaMatcher("strict", "", b""), providing(None, outputSchemaHash="")),
    ):
        assert judge.mismatch(capability) == "its output schema differs from the expected one"


def test_a_provider_that_tells_no_hash_passes_where_it_is_not_strict() -> None:
    """Nothing is known of it."""
    assert need("subset", CITY).mismatch(providing(None)) is None
    assert need("unheard of", CITY).mismatch(providing(None)) is None
    assert need("unheard of", CITY).mismatch(providing({"type": "object"})) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON, st.sampled_from(["subset", "strict"]))
def test_whatever_is_sent_is_judged(expected: Any, given_: Any, hash_: Any, mode: str) -> None:
    """Neither side's schema need be one, nor a hash be text."""
    capability = providing(given_, outputSchemaHash=hash_)

    assert isinstance(need(mode, expected).mismatch(capability), str | None)


@given(JSON.filter(lambda schema: schema is not None))
def test_what_is_expected_is_met_by_the_same(schema: Any) -> None:
    """By its hash."""
    assert need("strict", schema).mismatch(providing(schema)) is None


def test_a_long_schema_is_read_and_not_kept() -> None:
    """What is kept has a bound in bytes, too, whatever clients send."""
    long = {**CITY, "description": "x" * 20_000}

    assert need("subset", long).mismatch(providing(CITY)) is None
    assert need("subset", CITY).mismatch(providing({**PROVIDED["city_int"], "description": "x" * 20_000})) is not None


def test_a_name_that_is_required_very_often_is_looked_for_once() -> None:
    """Not once for each time in each provider's schema."""
    often = need("subset", {"required": ["a"] * 50_000, "properties": {"a": 1}, "items": {"required": ["b", "b"]}})

    assert often._expected == {"required": ["a"], "properties": {}, "items": {"required": ["b"]}}


def test_a_field_that_is_required_twice_is_looked_at_once() -> None:
    """One registration stood a replica still: named twice on each of 29 levels, the innermost was looked at 2^29 times.

    What is no name is passed over.
    """
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(29):
        schema = {"type": "object", "required": ["a", "a", ["a"], None], "properties": {"a": schema}}

    assert need("subset", schema).mismatch(providing({**schema, "title": "another hash"})) is None
