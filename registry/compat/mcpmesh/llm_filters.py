"""What functions say that work with language models: the tools they filter for, the provider they delegate to."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import orjson

from registry.compat.mcpmesh.spec import McpMeshDependency

MAX_WORD_CHARS: Final = 1_000
"""How long what others are looked up by may be, in characters."""
MAX_WORDS_PER_REQUIREMENT: Final = 1_000
"""How many of these one tool or one need may have."""
BEST_MATCH: Final = "best_match"
_WILDCARD: Final = "*"
_ANY_CAPABILITY: Final = McpMeshDependency("")


class DependencyLike(Protocol):
    """What a dependency is in each form."""

    @property
    def capability(self) -> str | None:
        """The name."""

    @property
    def version(self) -> str | None:
        """The constraint."""

    @property
    def namespace(self) -> str | None:
        """Where to look."""

    @property
    def tags(self) -> Sequence[str | Sequence[str]] | None:
        """Those wanted; of a list inside, one."""


class LlmFilter(NamedTuple):
    """What a function filters for: needs, whose capability may be '' for any.

    The mode `best_match` takes one of each capability, `*` whatever there is.
    """

    entries: tuple[McpMeshDependency, ...]
    mode: str


def parse_filter(text: bytes) -> LlmFilter | None:
    """Read `llm_filter`; None where it is none. An entry that cannot be read asks for nothing."""
    sent = orjson.loads(text) if text else None
    if not isinstance(sent, dict) or not isinstance(sent.get("filter"), list):
        return None
    mode = sent.get("filter_mode")
    if mode == _WILDCARD:
        return LlmFilter((_ANY_CAPABILITY,), _WILDCARD)
    entries = tuple(entry for each in sent["filter"] if (entry := _parse_entry(each)) is not None)
    return LlmFilter(entries, BEST_MATCH if mode == BEST_MATCH else "all")


def _parse_entry(sent: Any) -> McpMeshDependency | None:
    if isinstance(sent, str):
        return _ANY_CAPABILITY if sent == _WILDCARD else McpMeshDependency(sent) if sent else None
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
    """Read `llm_provider`; None where it is none or cannot be read."""
    sent = orjson.loads(text) if text else None
    entry = _parse_entry(sent) if isinstance(sent, dict) else None
    return entry if entry is not None and entry.capability else None


def lookup_words(dependency: DependencyLike) -> Iterator[str]:
    """Return all by which others are looked up."""
    yield from (dependency.capability or "", dependency.version or "", dependency.namespace or "")
    for tag in dependency.tags or ():
        yield from (tag,) if isinstance(tag, str) else tag
