"""Parsers that convert query strings and query objects to the queries of the services."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from registry.api.request.continue_token import decode_continue_token, query_digest
from registry.api.request.query_params import (
    QueryParams,
    boolean,
    comma_list,
    duration_seconds,
    integer,
    invalid,
    optional_bool,
    parse_query,
    reject_unknown,
    repeated,
    resource_version,
    single,
    single_text,
)
from registry.errors import Detail, UnprocessableRequest
from registry.model.label_selector import LabelSelector, parse_selector
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.discovery_service import Freshness, Page

# The query parameters of each call, with their descriptions in the OpenAPI document.
VERSION_PARAM = {"resource_version": "0: any cached version; N: at least N; default: latest"}
_FRESHNESS_PARAMS = VERSION_PARAM | {"resource_version_match": "Exact or NotOlderThan, with a resource_version"}
_CAPABILITY_PARAMS = {
    "version_constraint": "for example >=1.0.0, ^1.2, 1.x or ~2.0 || >=3",
    "fuzzy_match": "true for approximate names, best match first, with a score",
}
_AGENT_FILTERS = {
    "namespace": "exactly this namespace",
    "status": "pending, healthy, degraded, expired, unhealthy, offline or any",
    "draining": "true: only draining agents; false: only agents in service",
    "agent_id": "exactly this agent",
    "label_selector": "a Kubernetes label selector",
    "capability": "has this capability; repeat it for several",
    "match": "all of the capabilities, or any",
    "capability_category": "applies to one and the same capability",
    "capability_stability": "alpha, beta, experimental, stable or deprecated",
    "capability_tags": "all of these, comma-separated",
    **_CAPABILITY_PARAMS,
}
LIST_AGENTS_PARAMS = {
    **_AGENT_FILTERS,
    **_FRESHNESS_PARAMS,
    "limit": "maximum number of agents per page",
    "continue": "token of the previous page",
    "fields": "only these fields of each agent, comma-separated",
    "wait": "respond when the result changes after resource_version, at most this long, for example 30s",
    "watch": "true for a stream of events, as NDJSON or server-sent events",
    "send_initial": "with watch: current agents first, then a bookmark",
    "timeout": "with watch: end the stream after this long, for example 60s",
}
LIST_CAPABILITIES_PARAMS = {
    "name": "exactly this name, unless fuzzy_match",
    "q": "text to search in names, tags and descriptions, best match first",
    "description_contains": "part of the description, in any case",
    "category": "exactly this category",
    "tags": "all of these, comma-separated",
    "stability": "alpha, beta, experimental, stable or deprecated",
    **_CAPABILITY_PARAMS,
    "include_deprecated": "true to show deprecated ones too",
    "agent_namespace": "of agents in this namespace",
    "agent_status": "of agents with this status",
    "agent_draining": "draining or in service; default in service, unless agent_status is any",
    "agent_id": "of this agent",
    **_FRESHNESS_PARAMS,
}
_LIST_FIELDS = ("capabilities", "capability_tags")
_BOOLEAN_FIELDS = ("fuzzy_match", "draining")
_DRAIN_FIELDS = ("label_selector", "namespace")
_DISCOVER_FIELDS = (*_AGENT_FILTERS, "capabilities", "labels", "resource_version")
_MAX_PAGE_ROWS = 10_000
_MAX_WAIT_S = 300.0
_MAX_WATCH_S = 3600.0
# The parsed query strings of lists, bounded by their size in memory.
_MAX_CACHED_BYTES: Final = 4 * 1024 * 1024
_BYTES_PER_REQUEST: Final = 512
_BYTES_PER_FIELD: Final = 100
_EXACT_BY_MATCH = {"exact": True, "notolderthan": False}


@dataclass(frozen=True, slots=True)
class ListAgentsRequest:
    """The parsed query string of GET /agents: a list, a page, a long poll or a watch.

    `digest` identifies the query and the fields of its rows. `wait` and `timeout` are seconds.
    """

    query: AgentQuery
    freshness: Freshness
    page: Page | None
    fields: tuple[str, ...]
    digest: str
    watch: bool
    send_initial: bool
    timeout: float | None
    wait: float | None


class _ListAgentsParser(dict[bytes, ListAgentsRequest]):
    """Parses query strings, and caches the results; a full cache is emptied, which keeps a cached result cheap."""

    _bytes = 0

    def __missing__(self, query_string: bytes) -> ListAgentsRequest:
        request = _parse_list_agents(query_string)
        texts_bytes = 2 * len(query_string) + _BYTES_PER_FIELD * len(request.fields)
        weight = _BYTES_PER_REQUEST + texts_bytes + request.query.approximate_bytes
        if self._bytes + weight > _MAX_CACHED_BYTES:
            self.clear()
            self._bytes = 0
        self._bytes += weight
        self[query_string] = request
        return request


_list_agents_parser: Final = _ListAgentsParser()


def parse_list_agents(query_string: bytes) -> ListAgentsRequest:
    """Parse the query string of GET /agents, with a cache for repeated query strings."""
    return _list_agents_parser[query_string]


def _parse_list_agents(query_string: bytes) -> ListAgentsRequest:
    params = parse_query(query_string, LIST_AGENTS_PARAMS)
    query = _build_agent_query(params, comma_list(params, "capability_tags"))
    fields = comma_list(params, "fields")
    digest = query_digest(query, fields)
    watch = boolean(params, "watch")
    request = ListAgentsRequest(
        query=query,
        freshness=freshness(params),
        page=_parse_page(params, digest),
        fields=fields,
        digest=digest,
        watch=watch,
        send_initial=boolean(params, "send_initial"),
        timeout=duration_seconds(params, "timeout", _MAX_WATCH_S),
        wait=duration_seconds(params, "wait", _MAX_WAIT_S),
    )
    for name in ("send_initial", "timeout"):
        if name in params and not watch:
            raise invalid(name, "requires watch=true")
    for name in ("limit", "continue", "fields", "wait", "resource_version_match"):
        if name in params and watch:
            raise invalid(name, "cannot be combined with watch=true")
    if "wait" in params and "resource_version_match" in params:
        raise invalid("resource_version_match", "cannot be combined with wait, which always returns the latest version")
    return request


def freshness(params: QueryParams) -> Freshness:
    """Return how fresh the response must be, from query parameters named as in Kubernetes."""
    version = resource_version(params, "resource_version")
    match = single(params, "resource_version_match")
    if match is None:
        return Freshness(version)
    if version is None:
        raise invalid("resource_version_match", "requires resource_version")
    exact = _EXACT_BY_MATCH.get(match.lower())
    if exact is None:
        raise invalid("resource_version_match", f"expected Exact or NotOlderThan, got {match[:60]!r}")
    if exact and version == 0:
        raise invalid("resource_version_match", "Exact requires a resource_version other than 0")
    return Freshness(version, exact)


def parse_capability_query(query_string: bytes) -> tuple[CapabilityQuery, Freshness]:
    """Parse the query string of GET /capabilities."""
    params = parse_query(query_string, LIST_CAPABILITIES_PARAMS)
    return CapabilityQuery(
        name=single_text(params, "name"),
        text=single_text(params, "q"),
        description_contains=single_text(params, "description_contains"),
        category=single_text(params, "category"),
        stability=single_text(params, "stability"),
        tags=comma_list(params, "tags"),
        version_constraint=single(params, "version_constraint"),
        fuzzy=boolean(params, "fuzzy_match"),
        include_deprecated=boolean(params, "include_deprecated"),
        agent_namespace=single_text(params, "agent_namespace"),
        agent_status=single(params, "agent_status") or "any",
        agent_draining=_draining_filter(params, "agent_status", "agent_draining"),
        agent_id=single_text(params, "agent_id"),
    ), freshness(params)


def parse_discover_query(document: Mapping[str, Any]) -> tuple[AgentQuery, Freshness]:
    """Parse the query object of discover_services; by default it finds healthy agents that are in service."""
    reject_unknown(document, _DISCOVER_FIELDS)
    params = {name: _string_values(document, name) for name in document if name not in ("labels", *_BOOLEAN_FIELDS)}
    for name in _BOOLEAN_FIELDS:
        value = document.get(name)
        if value is not None and not isinstance(value, bool):
            raise invalid(name, "expected true or false")
        params[name] = () if value is None else (("false", "true")[value],)
    params["capability"] = (*params.get("capability", ()), *params.pop("capabilities", ()))
    if not single(params, "status"):
        params["status"] = ("healthy",)
    labels = document.get("labels")
    if labels is not None and not (isinstance(labels, dict) and all(isinstance(v, str) for v in labels.values())):
        raise invalid("labels", "expected an object of strings")
    query = _build_agent_query(params, repeated(params, "capability_tags"), LabelSelector.from_labels(labels or {}))
    return replace(query, draining=_draining_filter(params, "status", "draining")), freshness(params)


def parse_drain_query(document: Mapping[str, Any]) -> AgentQuery:
    """Parse the body of POST /agents/drain; an empty query is rejected, because it would drain the whole mesh."""
    reject_unknown(document, _DRAIN_FIELDS)
    params = {name: _string_values(document, name) for name in document}
    query = _build_agent_query(params, ())
    if query == AgentQuery():
        problem = "expected a label selector such as env=dev, or a namespace, or both"
        raise UnprocessableRequest.of([Detail("label_selector", problem)])
    return query


def _draining_filter(params: QueryParams, status: str, draining: str) -> bool | None:
    """Return the filter on draining agents of a search: only agents in service, unless its status is `any`."""
    requested = optional_bool(params, draining)
    return False if requested is None and single(params, status) != "any" else requested


def _build_agent_query(params: QueryParams, tags: tuple[str, ...], selector: LabelSelector | None = None) -> AgentQuery:
    text = single(params, "label_selector")
    selectors = [each for each in (selector, parse_selector(text) if text else None) if each is not None]
    match = single(params, "match") or "all"
    if match not in ("all", "any"):
        raise invalid("match", f"expected all or any, got {match[:60]!r}")
    return AgentQuery(
        namespace=single_text(params, "namespace"),
        status=single(params, "status") or "any",
        draining=optional_bool(params, "draining"),
        agent_id=single_text(params, "agent_id"),
        selector=selectors[0] & selectors[1] if len(selectors) > 1 else selectors[0] if selectors else LabelSelector(),
        capabilities=tuple(dict.fromkeys(repeated(params, "capability"))),
        any_capability=match == "any",
        category=single_text(params, "capability_category"),
        stability=single_text(params, "capability_stability"),
        tags=tags,
        version_constraint=single(params, "version_constraint"),
        fuzzy=boolean(params, "fuzzy_match"),
    )


def _parse_page(params: QueryParams, digest: str) -> Page | None:
    limit = integer(params, "limit", 1, _MAX_PAGE_ROWS)
    text = single(params, "continue")
    if text is None:
        return None if limit is None else Page(limit)
    if limit is None:
        raise invalid("continue", "requires limit")
    return Page(limit, *decode_continue_token(text, digest))


def _string_values(query: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the values of a field of a query object as strings, as query parameters have them."""
    value = query[name]
    if value is None:
        return ()
    if name not in _LIST_FIELDS or not isinstance(value, list):
        if not isinstance(value, str):
            raise invalid(name, "expected a list of strings" if name in _LIST_FIELDS else "expected a string")
        return (value,)
    if not all(isinstance(each, str) for each in value):
        raise invalid(name, "expected a list of strings")
    if not all(value):
        raise invalid(name, "expected a list of non-empty strings")
    return tuple(value)
