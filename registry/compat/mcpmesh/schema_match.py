"""What an output must be like: the rules by which mesh clients match JSON schemas."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from registry.model.agent import ABSENT, Capability

STRICT: Final = "strict"
# The length of a schema, in bytes, up to which it is kept: those of clients have some hundred.
_USUAL: Final = 16_384
_NO_SCHEMA: Final[Mapping[str, Any]] = {}


class SchemaNeed:
    """Judges what capabilities say of their output.

    Equal hashes always pass. `strict` lets nothing else pass; any other mode lets a capability pass that says nothing,
    and one whose output has all fields that the expected schema requires, of the same types.
    """

    def __init__(self, mode: str, expected_hash: str, expected: bytes) -> None:
        self._strict = mode == STRICT
        self._hash = expected_hash
        self._expected = _tidied(_schema(expected))

    def lacks(self, capability: Capability) -> str | None:
        """Return why a capability will not do, None where it will."""
        if self._hash and capability.output_hash == self._hash:
            return None
        if self._strict:
            return "has not exactly the schema that is expected"
        if not capability.output_hash or capability.output_schema is ABSENT:
            return None
        return _misfit(self._expected, _schema(bytes(capability.output_schema)), "output")


def _schema(text: bytes) -> Mapping[str, Any]:
    """Return a schema; one that is not longer than usual is read once."""
    return _read_once(text) if len(text) <= _USUAL else _read(text)


def _read(text: bytes) -> Mapping[str, Any]:
    """Read a schema; one that is no object says nothing."""
    read = orjson.loads(text) if text else None
    return read if isinstance(read, dict) else _NO_SCHEMA


_read_once = lru_cache(maxsize=1024)(_read)


def _tidied(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema that requires each field once: else one would be looked at for each time, level in level."""
    tidied = dict(schema)
    if isinstance(schema.get("required"), list):
        tidied["required"] = list(dict.fromkeys(name for name in schema["required"] if isinstance(name, str)))
    if isinstance(schema.get("properties"), dict):
        fields = schema["properties"].items()
        tidied["properties"] = {name: _tidied(each) for name, each in fields if isinstance(each, dict)}
    if isinstance(schema.get("items"), dict):
        tidied["items"] = _tidied(schema["items"])
    return tidied


def _misfit(expected: Mapping[str, Any], given: Mapping[str, Any], place: str) -> str | None:
    """Return where what is given is not as expected, None where it is. No document is deeper than 64."""
    kind, wanted = given.get("type"), expected.get("type")
    if isinstance(kind, str) and wanted is not None and kind != wanted and (kind, wanted) != ("integer", "number"):
        return f"{place} is {kind}, not {wanted}"
    fields, wanted_fields = _object(given.get("properties")), _object(expected.get("properties"))
    required = expected.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in fields:
            return f"{place} has no field {name}"
        wrong = _misfit(_object(wanted_fields.get(name)), _object(fields[name]), f"{place}.{name}")
        if wrong is not None:
            return wrong
    if isinstance(expected.get("items"), dict):
        if not isinstance(given.get("items"), dict):
            return f"{place} does not say what it is a list of"
        return _misfit(expected["items"], given["items"], f"{place}[]")
    return None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NO_SCHEMA
