"""Matches the output schema of a provider by the rules of the mcp-mesh SDKs."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from registry.compat.mcpmesh.spec_fields import McpMeshCapability, schema_requirement
from registry.model.agent import ABSENT, Capability, Dependency

STRICT: Final = "strict"
_NOT_EQUAL: Final = "its output schema differs from the expected one"
# Longer schemas are not cached; the schemas of SDKs have a few hundred bytes.
_MAX_CACHED_SCHEMA_BYTES: Final = 16_384
_EMPTY_SCHEMA: Final[Mapping[str, Any]] = {}


class SchemaMatcher:
    """Compares the output schemas of capabilities with the schema that a consumer expects.

    Equal hashes match, in mode `strict` nothing else. In any other mode a capability also matches if it has no output
    schema, or if its output schema has all required fields of the expected schema, with the same types.
    """

    def __init__(self, mode: str, expected_hash: str, expected: bytes) -> None:
        self._strict = mode == STRICT
        self._hash = expected_hash
        self._expected = _deduplicate_required(_load_schema(expected))

    def mismatch(self, capability: Capability) -> str | None:
        """Return the reason why the output schema of a capability does not match, None if it matches."""
        if not isinstance(capability, McpMeshCapability):
            return _NOT_EQUAL if self._strict else None
        if self._hash and capability.output_schema_hash == self._hash:
            return None
        if self._strict:
            return _NOT_EQUAL
        if not capability.output_schema_hash or capability.output_schema is ABSENT:
            return None
        return _find_mismatch(self._expected, _load_schema(bytes(capability.output_schema)), "output")


def schema_matcher(dependency: Dependency) -> Callable[[Capability], str | None] | None:
    """Return a function that checks a provider's output schema; None if the dependency accepts any schema."""
    requirement = schema_requirement(dependency)
    return None if requirement is None else SchemaMatcher(*requirement).mismatch


def _load_schema(text: bytes) -> Mapping[str, Any]:
    """Return a parsed JSON schema, from a cache unless its text is unusually long."""
    return _parse_schema_cached(text) if len(text) <= _MAX_CACHED_SCHEMA_BYTES else _parse_schema(text)


def _parse_schema(text: bytes) -> Mapping[str, Any]:
    """Parse the text of a JSON schema; any text other than a JSON object becomes an empty schema."""
    document = orjson.loads(text) if text else None
    return document if isinstance(document, dict) else _EMPTY_SCHEMA


_parse_schema_cached = lru_cache(maxsize=1024)(_parse_schema)


def _deduplicate_required(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema without repeated `required` entries, which would multiply the cost of the comparison."""
    deduplicated = dict(schema)
    if isinstance(schema.get("required"), list):
        deduplicated["required"] = list(dict.fromkeys(name for name in schema["required"] if isinstance(name, str)))
    if isinstance(schema.get("properties"), dict):
        fields = schema["properties"].items()
        deduplicated["properties"] = {
            name: _deduplicate_required(each) for name, each in fields if isinstance(each, dict)
        }
    if isinstance(schema.get("items"), dict):
        deduplicated["items"] = _deduplicate_required(schema["items"])
    return deduplicated


def _find_mismatch(expected: Mapping[str, Any], provided: Mapping[str, Any], path: str) -> str | None:
    """Return the first difference from the expected schema, None if there is none. Documents are at most 64 deep."""
    provided_type, expected_type = provided.get("type"), expected.get("type")
    differs = isinstance(provided_type, str) and expected_type not in (None, provided_type)
    if differs and (provided_type, expected_type) != ("integer", "number"):
        return f"{path} is {provided_type}, not {expected_type}"
    fields, expected_fields = _as_object(provided.get("properties")), _as_object(expected.get("properties"))
    required = expected.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in fields:
            return f"{path} has no field {name}"
        mismatch = _find_mismatch(_as_object(expected_fields.get(name)), _as_object(fields[name]), f"{path}.{name}")
        if mismatch is not None:
            return mismatch
    if isinstance(expected.get("items"), dict):
        if not isinstance(provided.get("items"), dict):
            return f"{path} does not declare its item type"
        return _find_mismatch(expected["items"], provided["items"], f"{path}[]")
    return None


def _as_object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _EMPTY_SCHEMA
