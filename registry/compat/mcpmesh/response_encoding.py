"""The response format of agents that registered in the mcp-mesh format."""

import hashlib
from collections.abc import Iterator
from typing import Final

from registry.cache.view import View
from registry.compat.mcpmesh.llm_tools import LlmToolFinder
from registry.compat.mcpmesh.registration_response import encode_response_fields
from registry.model.agent import Agent, LookupKey
from registry.model.resolution import RankedProviders, ResolvedDependency
from registry.service.resolution.response_format import ResponseFormat

# The maximum key length of blake2b.
_MAX_DIGEST_KEY_BYTES: Final = 64


class McpMeshResponseFormat(ResponseFormat):
    """Encodes the resolved dependencies of an mcp-mesh agent, and the tools and providers of its LLM functions."""

    def __init__(self, llm_tools: LlmToolFinder) -> None:
        self._llm_tools = llm_tools

    def prepare(self, view: View, agent: Agent) -> Iterator[object]:
        """Find the tools and LLM providers of an agent one by one, and cache them for `encode`."""
        return self._llm_tools.fill_cache(view, agent)

    def rankings(self, view: View, agent: Agent) -> Iterator[RankedProviders]:
        """Return the rankings of the agent's LLM providers."""
        return self._llm_tools.provider_rankings(view, agent)

    def lookup_keys(self, agent: Agent) -> tuple[LookupKey, ...]:
        """Return the lookup keys of the agent's tool filters and LLM providers."""
        return self._llm_tools.lookup_keys(agent)

    def encode(self, view: View, agent: Agent, dependencies: tuple[ResolvedDependency, ...]) -> tuple[str, bytes]:
        """Return the digest and the JSON fields of a response with the agent's resolved dependencies.

        The digest depends on the timeline: the agent does not report which response it has, and a loss of data removes
        that from the store, so every agent gets the full response once.
        """
        fields = encode_response_fields(dependencies, self._llm_tools.find(view, agent))
        key = view.timeline.encode()[:_MAX_DIGEST_KEY_BYTES]
        return hashlib.blake2b(fields, digest_size=8, key=key).hexdigest(), fields
