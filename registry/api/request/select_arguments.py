"""The arguments of GET /select and of the tool `select_agent`: a dependency, a zone, and a freshness."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from registry.api.request.query_params import QueryParams, comma_list, parse_query, reject_unknown, single, single_text
from registry.api.request.query_parsers import VERSION_PARAM, freshness
from registry.errors import Detail, UnprocessableRequest
from registry.model.agent import Dependency
from registry.model.registration.schema import DependencySchema, dependency_schema
from registry.model.validation.errors import format_path
from registry.model.validation.schema_errors import validator_for
from registry.service.discovery.discovery_service import Freshness

_DEPENDENCY_PARAMS = {
    "capability": "required capability",
    "version_constraint": "for example >=1.0.0",
    "tags": "t is required, +t preferred, -t excluded; comma-separated",
    "namespace": "exactly this namespace",
    "strategy": "best, round_robin, random, least_loaded, sticky, weighted or local",
    "key": "with sticky: the same key gets the same agent",
}
SELECT_PARAMS = {
    **_DEPENDENCY_PARAMS,
    "zone": "with local: prefer agents with this zone label",
    "exclude": "ids of agents that are not selected, comma-separated",
    **VERSION_PARAM,
}
"""The query parameters of GET /select, with their descriptions in the OpenAPI document."""
_LIST_PARAMS = ("tags", "exclude")
_MAX_EXCLUDED_AGENTS = 100
_DEPENDENCY_VALIDATOR = validator_for(DependencySchema)


@dataclass(frozen=True, slots=True)
class SelectRequest:
    """The dependency for which an agent is selected, the zone of the caller, and the freshness of the response.

    Agents with an id in `exclude` are not selected.
    """

    dependency: Dependency
    zone: str | None
    freshness: Freshness
    exclude: frozenset[str]


def select_schema() -> dict[str, Any]:
    """Return the JSON schema of the arguments of `select_agent`."""
    dependency = dependency_schema()["properties"]
    properties = {("version_constraint" if name == "version" else name): schema for name, schema in dependency.items()}
    string = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            **properties,
            "zone": {**string, "description": "For strategy local: prefer agents with this zone label"},
            "exclude": {
                "type": "array",
                "items": string,
                "maxItems": _MAX_EXCLUDED_AGENTS,
                "description": "Ids of agents that are not selected, for example after a failed call",
            },
            "resource_version": {**string, "description": "0: any cached version; N: at least version N"},
        },
        "required": ["capability"],
        "additionalProperties": False,
    }


def parse_select_query(query_string: bytes) -> SelectRequest:
    """Parse the query string of GET /select. Raises MalformedRequest, or UnprocessableRequest naming bad fields."""
    params = parse_query(query_string, SELECT_PARAMS)
    arguments: dict[str, Any] = {name: single(params, name) for name in SELECT_PARAMS if name not in _LIST_PARAMS}
    arguments["zone"] = single_text(params, "zone")
    # An unescaped + in a query string decodes to a space, which no tag begins with.
    arguments["tags"] = [f"+{tag[1:]}" if tag.startswith(" ") else tag for tag in comma_list(params, "tags")]
    fresh, exclude = freshness(params), _parse_exclude(comma_list(params, "exclude"))
    return SelectRequest(_parse_dependency(arguments), arguments["zone"], fresh, exclude)


def parse_select_document(document: Mapping[str, Any]) -> SelectRequest:
    """Parse the arguments of `select_agent`. Raises MalformedRequest, or UnprocessableRequest naming bad fields."""
    reject_unknown(document, SELECT_PARAMS)
    strings = {name: document.get(name) for name in ("resource_version", "zone")}
    problems = [
        Detail(name, "expected a string") for name, value in strings.items() if not isinstance(value, str | None)
    ]
    if problems:
        raise UnprocessableRequest.of(problems)
    params: QueryParams = {name: (value,) for name, value in strings.items() if value}
    fresh, exclude = freshness(params), _parse_exclude(document.get("exclude") or ())
    return SelectRequest(_parse_dependency(document), strings["zone"], fresh, exclude)


def _parse_exclude(ids: object) -> frozenset[str]:
    """Return the ids of excluded agents. Raises UnprocessableRequest for another value than a short list of strings."""
    if (
        isinstance(ids, list | tuple)
        and len(ids) <= _MAX_EXCLUDED_AGENTS
        and all(isinstance(each, str) for each in ids)
    ):
        return frozenset(ids)
    raise UnprocessableRequest.of([Detail("exclude", f"expected at most {_MAX_EXCLUDED_AGENTS} agent ids")])


def _parse_dependency(arguments: Mapping[str, Any]) -> Dependency:
    """Parse the dependency in the arguments of a selection. Raises UnprocessableRequest for bad fields."""
    document = {name: arguments[name] for name in _DEPENDENCY_PARAMS if arguments.get(name) is not None}
    if "version_constraint" in document:
        document["version"] = document.pop("version_constraint")
    problems = [
        Detail(format_path(path).replace("version", "version_constraint", 1), problem)
        for path, problem in _DEPENDENCY_VALIDATOR.find_violations(document)
    ]
    for strategy, field in (("sticky", "key"), ("local", "zone")):
        if arguments.get("strategy") == strategy and not arguments.get(field):
            problems.append(Detail(field, f"is required with strategy {strategy}"))
    if problems:
        raise UnprocessableRequest.of(problems, separator=" ")
    return msgspec.convert(document, Dependency)
