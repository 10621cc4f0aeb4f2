"""Validates requests before they are sent: finds data that the registry would reject, and names the field.

The registry validates each request again; fields that are not checked here are sent unchanged.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mcp_mesh_client.errors import InvalidData, SecurityValidationError

MAX_REGISTRATIONS_PER_CALL = 200
MAX_HEARTBEATS_PER_CALL = 1000

_ID = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_JSON_DEPTH = 64


def check_id(agent_id: object, field: str = "agent_id") -> str:
    """Validate the id of an agent and return it. Raises InvalidData."""
    if not isinstance(agent_id, str) or not _ID.fullmatch(agent_id):
        raise InvalidData(field, f"{field}: expected 1 to 253 letters, digits and . _ : -, not {agent_id!r:.100}")
    return agent_id


def check_ids(agent_ids: Sequence[str]) -> list[str]:
    """Validate the ids of several agents and return them. Raises InvalidData."""
    if isinstance(agent_ids, str):
        raise InvalidData("agent_ids", "agent_ids: expected a list of ids, not one string")
    if len(agent_ids) > MAX_HEARTBEATS_PER_CALL:
        raise InvalidData(
            "agent_ids", f"agent_ids: expected at most {MAX_HEARTBEATS_PER_CALL} ids per call, got {len(agent_ids)}"
        )
    return [check_id(agent_id, f"agent_ids[{at}]") for at, agent_id in enumerate(agent_ids)]


def check_registrations(agents: Sequence[Mapping[str, Any]], security_contexts: Mapping[str, Collection[str]]) -> None:
    """Validate several registrations. Raises InvalidData."""
    if isinstance(agents, str | Mapping) or len(agents) > MAX_REGISTRATIONS_PER_CALL:
        raise InvalidData("agents", f"agents: expected a list of at most {MAX_REGISTRATIONS_PER_CALL} registrations")
    for at, agent in enumerate(agents):
        check_registration(agent, security_contexts, f"agents[{at}].")


def check_registration(
    data: Mapping[str, Any], security_contexts: Mapping[str, Collection[str]], path: str = ""
) -> None:
    """Validate one registration; `path` is the prefix of its field names in errors.

    Raises InvalidData with the first invalid field, SecurityValidationError if it does not satisfy its security
    context.
    """
    if not isinstance(data, Mapping):
        raise InvalidData(path.rstrip(".") or "registration_data", f"{path}registration_data: expected a dict")
    ids = [name for name in ("id", "agent_id") if data.get(name) is not None]
    if not ids:
        raise _missing_field(f"{path}id")
    for name in ids:
        check_id(data[name], f"{path}{name}")
    _check_endpoint(data, path)
    names = _capability_names(data, path)
    check_json(data, path)
    _check_security_context(data, names, security_contexts, path)


def check_json(document: Mapping[str, Any], path: str = "") -> None:
    """Raise InvalidData, with the path of the value, for a value that JSON cannot represent."""
    for name, value in document.items():
        _check_value(value, f"{path}{name}", _MAX_JSON_DEPTH)


def encode_json(document: object) -> bytes:
    """Encode validated data as JSON bytes."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict).encode()


def _check_endpoint(data: Mapping[str, Any], path: str) -> None:
    """Validate the endpoint of a registration: `endpoint`, one in the metadata, or `http_host`."""
    metadata = data.get("metadata")
    nested = metadata if isinstance(metadata, Mapping) else {}
    field, endpoint = f"{path}endpoint", data.get("endpoint")
    if endpoint is None and nested.get("endpoint") is not None:
        field, endpoint = f"{path}metadata.endpoint", nested["endpoint"]
    if endpoint is None:
        if "http_host" in data:
            return
        raise _missing_field(field)
    if not isinstance(endpoint, str) or not endpoint:
        raise InvalidData(field, f"{field}: expected a URL, not {endpoint!r:.100}")


def _capability_names(data: Mapping[str, Any], path: str) -> set[str]:
    """Return the names of all capabilities of a registration. Raises InvalidData if one has no name."""
    names = _names(data.get("capabilities"), f"{path}capabilities", "name")
    metadata = data.get("metadata")
    if isinstance(metadata, Mapping):
        names |= _names(metadata.get("tools"), f"{path}metadata.tools", "capability")
    return names


def _names(items: object, field: str, key: str) -> set[str]:
    if items is None:
        return set()
    if isinstance(items, str | Mapping) or not isinstance(items, Sequence):
        raise InvalidData(field, f"{field}: expected a list")
    names = set()
    for at, each in enumerate(items):
        name = each.get(key) if isinstance(each, Mapping) else each
        if key == "capability" and name is None:
            continue
        if not isinstance(name, str) or not (name or key == "capability"):
            raise _missing_field(f"{field}[{at}].{key}")
        names.add(name)
    return names


def _check_security_context(
    data: Mapping[str, Any], names: set[str], security_contexts: Mapping[str, Collection[str]], path: str
) -> None:
    """Check that a registration has the capabilities its security context requires; skip contexts unknown here."""
    context = data.get("security_context")
    if context is None:
        return
    field = f"{path}security_context"
    if not isinstance(context, str) or not context:
        raise SecurityValidationError(field, f"{field}: expected the name of a context, not {context!r:.100}")
    missing = sorted(set(security_contexts.get(context, ())) - names)
    if missing:
        raise SecurityValidationError(
            f"{path}capabilities",
            f"{path}capabilities: security_context {context} also requires the capabilities {', '.join(missing)}",
        )


def _check_value(value: object, field: str, depth_left: int) -> None:
    if isinstance(value, Mapping | list | tuple):
        if depth_left == 0:
            raise InvalidData(field, f"{field}: nested deeper than {_MAX_JSON_DEPTH}")
        if isinstance(value, Mapping):
            inner = [(f"{field}.{key}", each) for key, each in value.items()]
            invalid_key = next((key for key in value if not isinstance(key, str)), None)
            if invalid_key is not None:
                raise InvalidData(field, f"{field}: object keys must be strings, not {invalid_key!r:.100}")
        else:
            inner = [(f"{field}[{at}]", each) for at, each in enumerate(value)]
        for name, each in inner:
            _check_value(each, name, depth_left - 1)
    else:
        _check_scalar(value, field)


def _check_scalar(value: object, field: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidData(field, f"{field}: JSON cannot represent {value}")
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise InvalidData(field, f"{field}: unpaired surrogate")
    if not isinstance(value, str | int | float | None):
        raise InvalidData(field, f"{field}: a {type(value).__name__} cannot be sent as JSON")


def _missing_field(field: str) -> InvalidData:
    return InvalidData(field, f"Missing required field: {field}")
