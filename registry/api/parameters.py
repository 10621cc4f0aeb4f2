"""Query strings and query objects to queries. What is not understood is refused, never ignored."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Scope

from registry.errors import Detail, MalformedRequest
from registry.model.query import AgentQuery, CapabilityQuery
from registry.model.selector import read_selector

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_AGENTS = (
    "namespace",
    "status",
    "capability",
    "label_selector",
    "version_constraint",
    "fuzzy_match",
    "resource_version",
)
_QUERY = (
    "namespace",
    "status",
    "capabilities",
    "capability",
    "labels",
    "label_selector",
    "version_constraint",
    "fuzzy_match",
    "resource_version",
)
_CAPABILITIES = (
    "name",
    "version_constraint",
    "fuzzy_match",
    "include_deprecated",
    "agent_namespace",
    "agent_status",
    "agent_id",
    "resource_version",
)
_MOST = 100


def bad(field: str, problem: str) -> MalformedRequest:
    """Return the refusal of one parameter."""
    return MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])


def parameters(scope: Scope, known: Collection[str]) -> dict[str, list[str]]:
    """Return the query string by name; an unknown name is refused with the nearest known one."""
    raw: bytes = scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError as error:
        raise MalformedRequest(f"The query string cannot be read: {error}") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    refuse_unknown(found, known)
    return found


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raise MalformedRequest naming every unknown parameter and the nearest known one."""
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    details = []
    for name in unknown[:_MOST]:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        details.append(Detail(name[:60], f"unknown parameter; {hint}"))
    raise MalformedRequest(f"{details[0].field}: {details[0].problem}", details)


def one(given: Mapping[str, Sequence[str]], name: str) -> str | None:
    """Return the value of a parameter that may come once. Blank is the same as not given."""
    values = given.get(name, ())
    if len(values) > 1:
        raise bad(name, "given more than once")
    return values[0] if values and values[0] else None


def boolean(text: str | None, name: str, *, default: bool = False) -> bool:
    """Read true, false, 1 or 0."""
    if text is None:
        return default
    if text.lower() not in _BOOLEANS:
        raise bad(name, f"expected true or false, got {text[:60]!r}")
    return _BOOLEANS[text.lower()]


def resource_version(text: str | None) -> int | None:
    """Read how fresh an answer must be."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):  # noqa: PLR2004 - no version has more digits
        raise bad("resource_version", f"expected a decimal number, got {text[:60]!r}")
    return int(text)


def refuse_fuzzy(wanted: bool) -> None:  # noqa: FBT001 - it is the parameter's value
    """Refuse fuzzy matching, which this release does not have yet."""
    if wanted:
        raise bad("fuzzy_match", "this release matches names exactly; leave it out or send false")


def agent_query(scope: Scope) -> tuple[AgentQuery, int | None]:
    """Read GET /agents: what to look for, and how fresh."""
    given = parameters(scope, _AGENTS)
    if not given:
        return _EVERYONE, None
    refuse_fuzzy(boolean(one(given, "fuzzy_match"), "fuzzy_match"))
    selector = one(given, "label_selector")
    query = AgentQuery(
        namespace=one(given, "namespace"),
        status=one(given, "status") or "any",
        capabilities=tuple(name for name in given.get("capability", ()) if name),
        labels=read_selector(selector) if selector else (),
        version_constraint=one(given, "version_constraint"),
    )
    return query, resource_version(one(given, "resource_version"))


_EVERYONE = AgentQuery()


def discover_query(query: Mapping[str, Any]) -> tuple[AgentQuery, int | None]:
    """Read the query object of discover_services, which looks for healthy agents unless it says otherwise."""
    refuse_unknown(query, _QUERY)
    fuzzy = query.get("fuzzy_match")
    if fuzzy is not None and not isinstance(fuzzy, bool):
        raise bad("fuzzy_match", "expected true or false")
    refuse_fuzzy(bool(fuzzy))
    selector = _text(query, "label_selector")
    labels = query.get("labels")
    labels = {} if labels is None else labels
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise bad("labels", "expected an object of strings")
    return AgentQuery(
        namespace=_text(query, "namespace"),
        status=_text(query, "status") or "healthy",
        capabilities=(*_texts(query, "capabilities"), *_texts(query, "capability")),
        labels=(*labels.items(), *(read_selector(selector) if selector else ())),
        version_constraint=_text(query, "version_constraint"),
    ), resource_version(_text(query, "resource_version"))


def capability_query(scope: Scope) -> tuple[CapabilityQuery, int | None]:
    """Read GET /capabilities: what to look for, and how fresh."""
    given = parameters(scope, _CAPABILITIES)
    refuse_fuzzy(boolean(one(given, "fuzzy_match"), "fuzzy_match"))
    return CapabilityQuery(
        name=one(given, "name"),
        version_constraint=one(given, "version_constraint"),
        include_deprecated=boolean(one(given, "include_deprecated"), "include_deprecated"),
        agent_namespace=one(given, "agent_namespace"),
        agent_status=one(given, "agent_status") or "any",
        agent_id=one(given, "agent_id"),
    ), resource_version(one(given, "resource_version"))


def _text(query: Mapping[str, Any], name: str) -> str | None:
    value = query.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise bad(name, "expected a string")
    return value


def _texts(query: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = query.get(name)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
        raise bad(name, "expected a capability's name, or a list of names")
    return tuple(values)
