"""What a request asks for: query strings and query objects to queries."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson

from registry.api.request.query_params import (
    Given,
    bad,
    boolean,
    flag,
    joined,
    one,
    parameters,
    refuse_unknown,
    seconds,
    several,
    version,
    whole,
)
from registry.errors import Detail, UnprocessableRequest
from registry.model.label_selector import Selector, read_selector
from registry.model.query import AgentQuery, CapabilityQuery
from registry.service.discovery.discovery import Freshness, Page

_FRESHNESS = ("resource_version", "resource_version_match")
_CAPABILITY = ("capability", "capability_category", "capability_stability", "capability_tags", "version_constraint")
_FILTERS = ("namespace", "status", "draining", "agent_id", "label_selector", *_CAPABILITY, "match", "fuzzy_match")
AGENTS = (
    *_FILTERS,
    *_FRESHNESS,
    "limit",
    "continue",
    "fields",
    "watch",
    "send_initial",
    "timeout",
    "wait",
)
CAPABILITIES = (
    "name",
    "q",
    "description_contains",
    "category",
    "tags",
    "stability",
    "version_constraint",
    "fuzzy_match",
    "include_deprecated",
    "agent_namespace",
    "agent_status",
    "agent_draining",
    "agent_id",
    *_FRESHNESS,
)
_BOOLEANS = ("fuzzy_match", "draining")
_DRAIN = ("label_selector", "namespace")
_QUERY = (*_FILTERS, "capabilities", "labels", "resource_version")
_MOST_ROWS = 10_000
_LONGEST_WAIT = 300.0
_LONGEST_WATCH = 3600.0
_MATCHES = {"exact": True, "notolderthan": False}


@dataclass(frozen=True, slots=True)
class AgentsRequest:
    """All that GET /agents was asked: a list, a page of it, a watch, or a list once it has changed.

    `digest` stands for what the rows depend on. `wait` and `timeout` are seconds.
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


@lru_cache(maxsize=16_384)
def agents_request(raw: bytes) -> AgentsRequest:
    """Read the query string of GET /agents. The same text is read once."""
    given = parameters(raw, AGENTS)
    query = _agent_query(given, joined(given, "capability_tags"))
    fields = joined(given, "fields")
    digest = _digest(query, fields)
    watch = boolean(given, "watch")
    request = AgentsRequest(
        query=query,
        freshness=freshness(given),
        page=_page(given, digest),
        fields=fields,
        digest=digest,
        watch=watch,
        send_initial=boolean(given, "send_initial"),
        timeout=seconds(given, "timeout", _LONGEST_WATCH),
        wait=seconds(given, "wait", _LONGEST_WAIT),
    )
    for name in ("send_initial", "timeout"):
        if name in given and not watch:
            raise bad(name, "goes with watch=true only")
    for name in ("limit", "continue", "fields", "wait", "resource_version_match"):
        if name in given and watch:
            raise bad(name, "does not go with watch=true")
    if "wait" in given and "resource_version_match" in given:
        raise bad("resource_version_match", "does not go with wait, whose answer is always the newest")
    return request


def freshness(given: Given) -> Freshness:
    """Read how fresh an answer must be, as Kubernetes has it."""
    asked = version(given, "resource_version")
    match = one(given, "resource_version_match")
    if match is None:
        return Freshness(asked)
    if asked is None:
        raise bad("resource_version_match", "goes with resource_version only")
    exact = _MATCHES.get(match.lower())
    if exact is None:
        raise bad("resource_version_match", f"expected Exact or NotOlderThan, got {match[:60]!r}")
    if exact and asked == 0:
        raise bad("resource_version_match", "Exact needs a version other than 0")
    return Freshness(asked, exact)


def token(digest: str, page_version: int, place: tuple[float, str, str]) -> str:
    """Return the token that goes on after a page."""
    return base64.urlsafe_b64encode(orjson.dumps([digest, page_version, *place])).decode().rstrip("=")


def capability_query(raw: bytes) -> tuple[CapabilityQuery, Freshness]:
    """Read GET /capabilities."""
    given = parameters(raw, CAPABILITIES)
    return CapabilityQuery(
        name=one(given, "name"),
        text=one(given, "q"),
        description_contains=one(given, "description_contains"),
        category=one(given, "category"),
        stability=one(given, "stability"),
        tags=joined(given, "tags"),
        version_constraint=one(given, "version_constraint"),
        fuzzy=boolean(given, "fuzzy_match"),
        include_deprecated=boolean(given, "include_deprecated"),
        agent_namespace=one(given, "agent_namespace"),
        agent_status=one(given, "agent_status") or "any",
        agent_draining=_in_service(given, "agent_status", "agent_draining"),
        agent_id=one(given, "agent_id"),
    ), freshness(given)


def discover_query(query: Mapping[str, Any]) -> tuple[AgentQuery, Freshness]:
    """Read the query object of discover_services: healthy agents in service, unless it says otherwise."""
    refuse_unknown(query, _QUERY)
    given = {name: _texts(query, name) for name in query if name not in ("labels", *_BOOLEANS)}
    for name in _BOOLEANS:
        value = query.get(name)
        if value is not None and not isinstance(value, bool):
            raise bad(name, "expected true or false")
        given[name] = () if value is None else (("false", "true")[value],)
    given["capability"] = (*given.get("capability", ()), *given.pop("capabilities", ()))
    if not one(given, "status"):
        given["status"] = ("healthy",)
    labels = query.get("labels")
    if labels is not None and not (isinstance(labels, dict) and all(isinstance(v, str) for v in labels.values())):
        raise bad("labels", "expected an object of strings")
    asked = _agent_query(given, several(given, "capability_tags"), Selector.of(labels or {}))
    asked = replace(asked, draining=_in_service(given, "status", "draining"))
    return asked, freshness(given)


def drain_query(document: Mapping[str, Any]) -> AgentQuery:
    """Read the body of POST /agents/drain. All agents of the mesh are not to be meant by leaving something out."""
    refuse_unknown(document, _DRAIN)
    given = {name: _texts(document, name) for name in document}
    query = _agent_query(given, ())
    if query == AgentQuery():
        problem = "expected a label selector such as env=dev, or a namespace, or both"
        raise UnprocessableRequest(f"label_selector: {problem}", [Detail("label_selector", problem)])
    return query


def _in_service(given: Given, status: str, draining: str) -> bool | None:
    """Read which agents a search shows: those that drain are left out unless it asks for them, or for any status."""
    asked = flag(given, draining)
    return False if asked is None and one(given, status) != "any" else asked


def _agent_query(given: Given, tags: tuple[str, ...], selector: Selector | None = None) -> AgentQuery:
    text = one(given, "label_selector")
    selectors = [each for each in (selector, read_selector(text) if text else None) if each is not None]
    match = one(given, "match") or "all"
    if match not in ("all", "any"):
        raise bad("match", f"expected all or any, got {match[:60]!r}")
    return AgentQuery(
        namespace=one(given, "namespace"),
        status=one(given, "status") or "any",
        draining=flag(given, "draining"),
        agent_id=one(given, "agent_id"),
        selector=selectors[0] & selectors[1] if len(selectors) > 1 else selectors[0] if selectors else Selector(),
        capabilities=tuple(dict.fromkeys(several(given, "capability"))),
        any_capability=match == "any",
        category=one(given, "capability_category"),
        stability=one(given, "capability_stability"),
        tags=tags,
        version_constraint=one(given, "version_constraint"),
        fuzzy=boolean(given, "fuzzy_match"),
    )


def _page(given: Given, digest: str) -> Page | None:
    limit = whole(given, "limit", 1, _MOST_ROWS)
    text = one(given, "continue")
    if text is None:
        return None if limit is None else Page(limit)
    if limit is None:
        raise bad("continue", "goes with limit only")
    try:
        of, page_version, score, namespace, agent_id = orjson.loads(
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        )
        place = (float(score), str(namespace), str(agent_id))
        page = Page(limit, place, int(page_version))
    except (ValueError, TypeError) as error:
        raise bad("continue", "is no token of this registry; begin again without it") from error
    if of != digest:
        raise bad("continue", "belongs to another query; send the same filters as for the first page")
    return page


def _digest(query: AgentQuery, fields: tuple[str, ...]) -> str:
    # A selector holds sets, whose repr is another in each process; its text is one for all replicas.
    text = f"{query.selector.text} {replace(query, selector=Selector())!r} {fields!r}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def _texts(query: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a value of a query object as a query string would have it: one text, or for lists several."""
    value = query[name]
    if value is None:
        return ()
    values = value if isinstance(value, list) and name in ("capabilities", "capability_tags") else [value]
    if not all(isinstance(each, str) for each in values):
        raise bad(name, "expected a string" if name not in ("capabilities", "capability_tags") else "expected names")
    if isinstance(value, list) and not all(values):
        raise bad(name, "expected names, none of them empty")
    return tuple(values)
