"""Merges the metadata of a heartbeat into the registration of its agent."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry.cache.view import Record
from registry.errors import Detail, UnprocessableRequest
from registry.model.registration.parse import Registration, parse_registration

# A spec may grow by heartbeats up to the size of one registration.
_MAX_SPEC_BYTES: Final = 1024 * 1024


def merge_metadata(record: Record, metadata: Mapping[str, Any]) -> Registration | None:
    """Return an agent's registration with new metadata merged in, None if the metadata changes nothing.

    `endpoint` and `tools` replace those of the agent; null removes a key. Raises UnprocessableRequest naming the
    fields of the metadata.
    """
    spec = record.agent.spec
    registration = _merged_registration(spec, metadata)
    if _normalized(registration.spec) == _normalized(spec):
        return None
    if len(registration.spec) > max(_MAX_SPEC_BYTES, len(spec)):
        size = f"{len(registration.spec):,} bytes, above the limit of {_MAX_SPEC_BYTES:,}"
        problem = f"the merged registration is {size}; set a key to null to remove it"
        raise UnprocessableRequest.of([Detail("metadata", problem)])
    return registration


def _merged_registration(encoded_spec: bytes, metadata: Mapping[str, Any]) -> Registration:
    spec: dict[str, Any] = orjson.loads(encoded_spec)
    given = {key: value for key, value in metadata.items() if value is not None}
    unchanged = {key: value for key, value in (spec.get("metadata") or {}).items() if key not in metadata}
    endpoint = given.pop("endpoint", spec["endpoint"])
    if "tools" in given:
        others = {key: value for key, value in spec.items() if key not in ("endpoint", "capabilities")}
        return parse_registration(others | {"metadata": unchanged | given | {"endpoint": endpoint}})
    try:
        return parse_registration(spec | {"endpoint": endpoint, "metadata": unchanged | given})
    except UnprocessableRequest as error:
        # The stored spec was valid, so the new endpoint is the invalid field.
        details = [Detail(f"metadata.{detail.field}", detail.problem) for detail in error.details]
        raise UnprocessableRequest.of(details) from error


def _normalized(spec: bytes) -> bytes:
    """Return a registration without empty metadata, as JSON text for a comparison of two registrations.

    Registrations are compared as JSON text, because in Python 1 equals True.
    """
    document = orjson.loads(spec)
    if document.get("metadata"):
        return spec
    document.pop("metadata", None)
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
