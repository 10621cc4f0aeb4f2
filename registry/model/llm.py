"""What functions say that work with language models: the tools they filter for, the provider they delegate to."""

from typing import Any, Final, NamedTuple

import msgspec
import orjson

from registry.model.agent import Dependency

BEST_MATCH: Final = "best_match"
_ANY: Final = "*"
_EMPTY: Final = Dependency("")


class Filter(NamedTuple):
    """What a function filters for: needs, whose capability may be '' for any.

    The mode `best_match` takes one of each capability, `*` whatever there is.
    """

    entries: tuple[Dependency, ...]
    mode: str


def read_filter(text: bytes) -> Filter | None:
    """Read `llm_filter`; None where it is none. An entry that cannot be read asks for nothing."""
    sent = orjson.loads(text) if text else None
    if not isinstance(sent, dict) or not isinstance(sent.get("filter"), list):
        return None
    mode = sent.get("filter_mode")
    if mode == _ANY:
        return Filter((_EMPTY,), _ANY)
    entries = tuple(entry for each in sent["filter"] if (entry := _entry(each)) is not None)
    return Filter(entries, BEST_MATCH if mode == BEST_MATCH else "all")


def _entry(sent: Any) -> Dependency | None:
    if isinstance(sent, str):
        return _EMPTY if sent == _ANY else Dependency(sent) if sent else None
    if not isinstance(sent, dict):
        return None
    try:
        return msgspec.convert({"capability": "", **sent}, Dependency)
    except msgspec.ValidationError:
        return None


def read_provider(text: bytes) -> Dependency | None:
    """Read `llm_provider`; None where it is none or cannot be read."""
    sent = orjson.loads(text) if text else None
    entry = _entry(sent) if isinstance(sent, dict) else None
    return entry if entry is not None and entry.capability else None
