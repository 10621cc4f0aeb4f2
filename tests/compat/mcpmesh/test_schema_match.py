"""Output schemas of providers: a table of measured results, and limits against hostile schemas."""

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
    """Return a hash that only equal schemas share."""
    return hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()


def capability_with(schema: Any, **fields: Any) -> Capability:
    """Return a capability with this output schema, or without one."""
    output = {} if schema is None else {"outputSchemaCanonical": schema, "outputSchemaHash": hash_of(schema)}
    (capability,) = decode_indexed_spec(a_spec(capabilities=[{"name": "c", **output, **fields}])).capabilities
    return capability


def schema_matcher(mode: str, schema: Any) -> SchemaMatcher:
    """Return a matcher for this schema."""
    return SchemaMatcher(mode, hash_of(schema), orjson.dumps(schema))


@pytest.mark.parametrize("mode", ["subset", "strict"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_schema_matches_the_measured_providers(name: str, mode: str) -> None:
    """Each case is a row of the table."""
    matcher = schema_matcher(mode, EXPECTED[name])

    matching = [each for each, schema in PROVIDED.items() if matcher.mismatch(capability_with(schema)) is None]

    row = PASSES[f"{name} {mode}"]
    assert matching == [each for each, measured in zip(PROVIDED, row, strict=True) if measured == "1"]


def test_the_table_is_complete() -> None:
    """It has two rows for each schema."""
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
def test_the_reason_names_the_field(expected: Any, given: Any, reason: str) -> None:
    """Traces and the error of an unresolved dependency show it."""
    assert schema_matcher("subset", expected).mismatch(capability_with(given)) == reason


def test_strict_mode_requires_the_same_hash() -> None:
    """The schemas are not compared; without a hash nothing matches."""
    assert SchemaMatcher("strict", hash_of(CITY), b"").mismatch(capability_with(CITY)) is None
    for matcher, capability in (
        (schema_matcher("strict", CITY), capability_with(None)),
        (SchemaMatcher("strict", "", orjson.dumps(CITY)), capability_with(CITY)),
        (SchemaMatcher("strict", "", b""), capability_with(None, outputSchemaHash="")),
    ):
        assert matcher.mismatch(capability) == "its output schema differs from the expected one"


def test_a_provider_without_a_schema_matches_except_in_strict_mode() -> None:
    """An unknown mode is not strict."""
    assert schema_matcher("subset", CITY).mismatch(capability_with(None)) is None
    assert schema_matcher("unheard of", CITY).mismatch(capability_with(None)) is None
    assert schema_matcher("unheard of", CITY).mismatch(capability_with({"type": "object"})) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON, st.sampled_from(["subset", "strict"]))
def test_any_schema_is_accepted(expected: Any, given_: Any, hash_: Any, mode: str) -> None:
    """Neither schema has to be valid, and the hash may have any type."""
    capability = capability_with(given_, outputSchemaHash=hash_)

    assert isinstance(schema_matcher(mode, expected).mismatch(capability), str | None)


@given(JSON.filter(lambda schema: schema is not None))
def test_a_schema_matches_itself(schema: Any) -> None:
    """The hashes are equal."""
    assert schema_matcher("strict", schema).mismatch(capability_with(schema)) is None


def test_a_long_schema_is_matched_and_not_cached() -> None:
    """The cache is limited in bytes."""
    long = {**CITY, "description": "x" * 20_000}

    assert schema_matcher("subset", long).mismatch(capability_with(CITY)) is None
    assert (
        schema_matcher("subset", CITY).mismatch(capability_with({**PROVIDED["city_int"], "description": "x" * 20_000}))
        is not None
    )


def test_repeated_names_are_removed() -> None:
    """A field is looked up once in each provider schema."""
    matcher = schema_matcher(
        "subset", {"required": ["a"] * 50_000, "properties": {"a": 1}, "items": {"required": ["b", "b"]}}
    )

    assert matcher._expected == {"required": ["a"], "properties": {}, "items": {"required": ["b"]}}


def test_a_field_that_is_required_twice_is_compared_once() -> None:
    """A field listed twice on each of 29 levels was compared 2^29 times, which blocked a replica.

    Required entries that are not names are ignored.
    """
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(29):
        schema = {"type": "object", "required": ["a", "a", ["a"], None], "properties": {"a": schema}}

    assert schema_matcher("subset", schema).mismatch(capability_with({**schema, "title": "another hash"})) is None
