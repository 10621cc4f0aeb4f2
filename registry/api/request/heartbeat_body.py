"""The body of POST /heartbeat: its schema, and the checks that name every invalid field."""

from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from registry.api.request.body import parse_object
from registry.errors import Detail, UnprocessableRequest
from registry.model.registration.warnings import MAX_WARNINGS, RegistrationWarning
from registry.spelling import NearNames

_MAX_LOAD = 1e9
_INVALID_LOAD = f"expected a number from 0 to {_MAX_LOAD:.0f}"


class HeartbeatRequest(msgspec.Struct):
    """The body of a heartbeat: the agent's id, its changed metadata and its load."""

    agent_id: str
    metadata: Annotated[dict[str, Any], Meta(title="Changed keys of the agent, such as endpoint or tools")] | None = (
        None
    )
    dependencies_version: (
        Annotated[
            str,
            Meta(title="dependencies_version of the last response; the dependency map is returned only if it changed"),
        ]
        | None
    ) = None
    load: (
        Annotated[float, Meta(ge=0, le=_MAX_LOAD, title="Current load of the agent, for strategy least_loaded")] | None
    ) = None


HEARTBEAT_SCHEMA: dict[str, Any] = msgspec.json.schema(HeartbeatRequest)["$defs"]["HeartbeatRequest"]

_FIELDS = HeartbeatRequest.__struct_fields__
_NEAR_NAMES = NearNames(_FIELDS)


def find_near_fields(document: dict[str, Any]) -> list[RegistrationWarning]:
    """Return a warning for each unknown field of a heartbeat that is nearly a known one."""
    unknown = islice((name for name in document if name not in _FIELDS), MAX_WARNINGS)
    problem = "is not a field of a heartbeat; it has no effect"
    return [RegistrationWarning(name, problem, near) for name in unknown if (near := _NEAR_NAMES.find(name))]


def validate_heartbeat(document: dict[str, Any]) -> HeartbeatRequest:
    """Validate a JSON object as a heartbeat. Raises UnprocessableRequest that names every invalid field."""
    agent_id, load, digest = (document.get(name) for name in ("agent_id", "load", "dependencies_version"))
    problems = []
    if not isinstance(agent_id, str) or not agent_id:
        agent_id = ""
        misspelt = next((f", not {each.field}" for each in find_near_fields(document) if each[2] == "agent_id"), "")
        problems.append(Detail("agent_id", f"expected the id of a registered agent, a string{misspelt}"))
    if not isinstance(document.get("metadata"), dict | None):
        problems.append(Detail("metadata", "expected an object"))
    if not isinstance(digest, str | None):
        problems.append(
            Detail("dependencies_version", "expected the dependencies_version of the last response, a string")
        )
    if load is not None and not _is_load(load):
        problems.append(Detail("load", _INVALID_LOAD))
    if problems:
        raise UnprocessableRequest.of(problems)
    return HeartbeatRequest(agent_id, document.get("metadata"), digest, load)


def extract_load(request: HeartbeatRequest, body: bytes) -> HeartbeatRequest:
    """Move a number `load` from a heartbeat's metadata to its own field, and validate the metadata.

    A load is not part of the registration, so it must not cause a change. Any other value of `metadata.load` is
    ordinary metadata.
    """
    if not request.metadata:
        return request
    parse_object(body)
    if _is_load(request.metadata.get("load")):
        load = request.metadata.pop("load")
        if request.load is None:
            request.load = load
    return request


def _is_load(value: object) -> bool:
    # The exact type is compared because bool is a subclass of int.
    return type(value) in (int, float) and 0 <= value <= _MAX_LOAD  # type: ignore[operator]
