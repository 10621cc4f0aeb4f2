"""What an output must be like: the rules by which mesh clients match JSON schemas."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from registry.compat.mcpmesh.spec import McpMeshCapability, schema_requirement
from registry.model.agent import ABSENT, Capability, Dependency

STRICT: Final = "strict"
_NOT_EQUAL: Final = "its output schema differs from the expected one"
# The length of a schema, in bytes, up to which it is kept: those of clients have some hundred.
_MAX_CACHED_SCHEMA_BYTES: Final = 16_384
_EMPTY_SCHEMA: Final[Mapping[str, Any]] = {}


class SchemaMatcher:
    """Judges what capabilities say of their output.

    Equal hashes always pass. `strict` lets nothing else pass; any other mode lets a capability pass that says nothing,
    and one whose output has all fields that the expected schema requires, of the same types.
    """

    def __init__(self, mode: str, expected_hash: str, expected: bytes) -> None:
        self._strict = mode == STRICT
        self._hash = expected_hash
        self._expected = _deduplicate_required(_load_schema(expected))

    def mismatch(self, capability: Capability) -> str | None:
        """Return why a capability will not do, None where it will."""
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
    """Return the check of a provider's output schema; None if the dependency accepts any schema."""
    requirement = schema_requirement(dependency)
    return None if requirement is None else SchemaMatcher(*requirement).mismatch


def _load_schema(text: bytes) -> Mapping[str, Any]:
    """Return a schema; one that is not longer than usual is read once."""
    return _parse_schema_cached(text) if len(text) <= _MAX_CACHED_SCHEMA_BYTES else _parse_schema(text)


def _parse_schema(text: bytes) -> Mapping[str, Any]:
    """Read a schema; one that is no object says nothing."""
    read = orjson.loads(text) if text else None
    return read if isinstance(read, dict) else _EMPTY_SCHEMA


_parse_schema_cached = lru_cache(maxsize=1024)(_parse_schema)


def _deduplicate_required(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema that requires each field once: else one would be looked at for each time, level in level."""
    tidied = dict(schema)
    if isinstance(schema.get("required"), list):
        tidied["required"] = list(dict.fromkeys(name for name in schema["required"] if isinstance(name, str)))
    if isinstance(schema.get("properties"), dict):
        fields = schema["properties"].items()
        tidied["properties"] = {name: _deduplicate_required(each) for name, each in fields if isinstance(each, dict)}
    if isinstance(schema.get("items"), dict):
        tidied["items"] = _deduplicate_required(schema["items"])
    return tidied


def _find_mismatch(expected: Mapping[str, Any], provided: Mapping[str, Any], path: str) -> str | None:
    """Return where what is given is not as expected, None where it is. No document is deeper than 64."""
    kind, wanted = provided.get("type"), expected.get("type")
    if isinstance(kind, str) and wanted is not None and kind != wanted and (kind, wanted) != ("integer", "number"):
        return f"{path} is {kind}, not {wanted}"
    fields, wanted_fields = _as_object(provided.get("properties")), _as_object(expected.get("properties"))
    required = expected.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in fields:
            return f"{path} has no field {name}"
        wrong = _find_mismatch(_as_object(wanted_fields.get(name)), _as_object(fields[name]), f"{path}.{name}")
        if wrong is not None:
            return wrong
    if isinstance(expected.get("items"), dict):
        if not isinstance(provided.get("items"), dict):
            return f"{path} does not declare its item type"
        return _find_mismatch(expected["items"], provided["items"], f"{path}[]")
    return None


def _as_object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _EMPTY_SCHEMA
