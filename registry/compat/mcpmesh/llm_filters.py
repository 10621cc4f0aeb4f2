"""Parses `llm_filter` and `llm_provider`: the tools that a function offers its language model, and its LLM provider."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from registry.compat.mcpmesh.spec_fields import McpMeshDependency, McpMeshDependencySchema

MAX_WORD_CHARS: Final = 1_000
"""Maximum length of a name, a version or a tag."""
MAX_WORDS_PER_REQUIREMENT: Final = 1_000
"""Maximum number of names, versions and tags of one tool or dependency."""
BEST_MATCH: Final = "best_match"
WILDCARD: Final = "*"
_ANY_CAPABILITY: Final = McpMeshDependency("")


class LlmFilter(NamedTuple):
    """The filter that selects the tools offered to a language model.

    Its entries are dependencies; the capability '' matches any. Mode `best_match` selects one tool per capability, `*`
    all tools of other agents.
    """

    entries: tuple[McpMeshDependency, ...]
    mode: str


def parse_filter(text: bytes) -> LlmFilter | None:
    """Parse the tool filter in the field `llm_filter`; None if the field is absent or invalid."""
    sent = orjson.loads(text) if text else None
    if not isinstance(sent, dict) or not isinstance(sent.get("filter"), list):
        return None
    mode = sent.get("filter_mode")
    if mode == WILDCARD:
        return LlmFilter((_ANY_CAPABILITY,), WILDCARD)
    entries = tuple(entry for each in sent["filter"] if (entry := _parse_entry(each)) is not None)
    return LlmFilter(entries, BEST_MATCH if mode == BEST_MATCH else "all")


def _parse_entry(sent: Any) -> McpMeshDependency | None:
    if isinstance(sent, str):
        return _ANY_CAPABILITY if sent == WILDCARD else McpMeshDependency(sent) if sent else None
    if not isinstance(sent, dict):
        return None
    try:
        entry = msgspec.convert({"capability": "", **sent}, McpMeshDependency)
    except msgspec.ValidationError:
        return None
    words = list(lookup_words(entry))
    return (
        None if len(words) > MAX_WORDS_PER_REQUIREMENT or any(len(word) > MAX_WORD_CHARS for word in words) else entry
    )


def parse_provider(text: bytes) -> McpMeshDependency | None:
    """Parse the LLM provider in the field `llm_provider`; None if the field is absent or invalid."""
    sent = orjson.loads(text) if text else None
    entry = _parse_entry(sent) if isinstance(sent, dict) else None
    return entry if entry is not None and entry.capability else None


def lookup_words(dependency: McpMeshDependency | McpMeshDependencySchema) -> Iterator[str]:
    """Yield the texts of a dependency by which its providers are found."""
    yield from (dependency.capability or "", dependency.version or "", dependency.namespace or "")
    for tag in dependency.tags or ():
        yield from (tag,) if isinstance(tag, str) else tag
