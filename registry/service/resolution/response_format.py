"""Encodes the resolution of an agent for responses, in the format of its registration."""

import hashlib
from collections.abc import Iterator

import orjson

from registry.cache.view import View
from registry.model.agent import Agent, LookupKey
from registry.model.resolution import RankedProviders, ResolvedDependency


class ResponseFormat:
    """The native response format: providers by function and capability, and reasons for missing ones.

    The response formats of other registration formats are derived from it.
    """

    def prepare(self, _view: View, _agent: Agent) -> Iterator[object]:
        """Run the slow lookups of `encode` one by one, and cache their results."""
        return iter(())

    def rankings(self, _view: View, _agent: Agent) -> Iterator[RankedProviders]:
        """Return the rankings that `encode` uses in addition to those of the dependencies."""
        return iter(())

    def lookup_keys(self, _agent: Agent) -> tuple[LookupKey, ...]:
        """Return the keys of lookups that a response needs in addition to the capabilities of the dependencies."""
        return ()

    def encode(self, _view: View, agent: Agent, dependencies: tuple[ResolvedDependency, ...]) -> tuple[str, bytes]:
        """Return the digest of a resolution, and its response fields as JSON members with a leading comma.

        Both are empty for an agent without functions and dependencies. If a function has several dependencies on one
        capability, the first resolved one is shown.
        """
        resolved: dict[str, dict[str, dict[str, str] | None]] = {name: {} for name, _ in agent.indexed.functions}
        if not resolved:
            return "", b""
        unresolved: dict[str, dict[str, str]] = {}
        for each in dependencies:
            name, entries = each.dependency.capability, resolved[each.function]
            if entries.get(name) is None:
                entries[name] = each.provider_fields
            if each.reason is not None and entries[name] is None:
                unresolved.setdefault(each.function, {}).setdefault(name, each.reason)
            elif unresolved.get(each.function, {}).pop(name, None) is not None and not unresolved[each.function]:
                del unresolved[each.function]
        encoded = orjson.dumps(resolved)
        digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
        fields = b',"dependencies_resolved":%s,"dependencies_unresolved":%s,"dependencies_version":"%s"'
        return digest, fields % (encoded, orjson.dumps(unresolved), digest.encode())
