"""Checks of a registration: limits on dependencies, version constraints, and the security context."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from registry.errors import Detail, MalformedRequest
from registry.model.agent import decode_indexed_spec
from registry.model.dependency_graph import Edge
from registry.service.resolution.cycle_guard import MAX_REQUIRED_EDGES, reject_dependencies
from registry.service.version_constraints import parse_constraint

MAX_VARIANTS_PER_CAPABILITY: Final = 100
"""Different combinations of conditions under which one agent may require a capability: each is ranked separately."""
_MAX_REPORTED_ERRORS: Final = 20
# Each capability of an agent requires every agent-level dependency; this bounds the product of the two.
_MAX_REQUIRED_PAIRS: Final = 10_000
# A canonical spec that contains one of these less often than the limit is not decoded.
_CAPABILITY_KEY_JSON: Final = b'"capability":'
_REQUIRED_TRUE_JSON: Final = b'"required":true'


def find_invalid_constraints(constraints: Iterable[tuple[str, str]]) -> list[Detail]:
    """Return the errors in version constraints, given as pairs of a field name and a constraint."""
    problems = []
    for field, text in constraints:
        try:
            parse_constraint(text)
        except MalformedRequest as error:
            problems.append(Detail(field, error.details[0].problem))
    return problems


def find_missing_capabilities(
    contexts: Mapping[str, frozenset[str]], context: str, capabilities: Collection[str]
) -> list[Detail]:
    """Return the error if an agent lacks a capability that its context requires; `contexts` lists those of each."""
    if context not in contexts:
        known = ", ".join(sorted(contexts))
        return [Detail("security_context", f"unknown context {context[:60]!r}; known are {known}")]
    missing = ", ".join(sorted(contexts[context].difference(capabilities)))
    problem = f"security_context {context} also requires the capabilities {missing}"
    return [Detail("capabilities", problem)] if missing else []


def find_too_many_variants(spec: bytes) -> list[Detail]:
    """Return an error for each capability that an agent requires with too many different sets of conditions."""
    if spec.count(_CAPABILITY_KEY_JSON) <= MAX_VARIANTS_PER_CAPABILITY:
        return []
    variants: dict[str, set[object]] = {}
    for _, each in decode_indexed_spec(spec).dependencies_by_function:
        variants.setdefault(each.capability, set()).add((each.match_key, each.namespace))
    return [
        Detail(
            "dependencies",
            f"require {name} with {len(conditions)} different combinations of version, tags and other conditions; "
            f"at most {MAX_VARIANTS_PER_CAPABILITY} are allowed",
        )
        for name, conditions in variants.items()
        if len(conditions) > MAX_VARIANTS_PER_CAPABILITY
    ][:_MAX_REPORTED_ERRORS]


def required_edges(spec: bytes) -> frozenset[Edge]:
    """Return pairs of an agent's capability and one that it requires. Raises UnprocessableRequest for too many."""
    if _REQUIRED_TRUE_JSON not in spec:
        return frozenset()
    edges: set[Edge] = set()
    for count, edge in enumerate(decode_indexed_spec(spec).required_edges, start=1):
        edges.add(edge)
        if len(edges) > MAX_REQUIRED_EDGES:
            reject_dependencies(f"at most {MAX_REQUIRED_EDGES:,} required dependencies are allowed")
        if count > _MAX_REQUIRED_PAIRS:
            pairs = "pairs of a capability and a required dependency"
            reject_dependencies(f"at most {_MAX_REQUIRED_PAIRS:,} {pairs} are allowed")
    return frozenset(edges)
