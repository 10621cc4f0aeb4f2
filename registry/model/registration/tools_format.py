"""The tools format of a registration: an agent lists its functions under `metadata.tools`.

A registration in this format is converted to the native format before its fields are validated, so that each rule
is defined once, in `schema.py`. Errors name the fields as they were sent.
"""

from collections.abc import Iterator
from typing import Any, Final, get_args

from registry.model.registration.schema import MAX_CAPABILITIES, Word
from registry.model.validation.errors import Path, Violation, describe_value

_METADATA: Final[Path] = (None, "metadata")
_ENDPOINT: Final[Path] = (_METADATA, "endpoint")
TOOLS: Final[Path] = (_METADATA, "tools")
"""The path of the list of tools."""
_CAPABILITIES: Final[Path] = (None, "capabilities")
_WORD_DESCRIPTION: Final[str] = get_args(Word)[1].description


def is_tools_format(document: dict[str, Any]) -> bool:
    """Return whether a registration is in the tools format: its endpoint or its tools are under `metadata`."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return False
    return (document.get("endpoint") is None and metadata.get("endpoint") is not None) or (
        not document.get("capabilities") and isinstance(metadata.get("tools"), list)
    )


def to_native(document: dict[str, Any]) -> dict[str, Any]:
    """Convert a registration in the tools format to the native format; invalid values stay unchanged.

    A `timestamp` is removed: the time of sending is not part of the registration.
    """
    native = {key: value for key, value in document.items() if key not in ("metadata", "timestamp")}
    moved = metadata_to_native(document)
    # Only null and [] count as absent: another empty value, such as '', is an error that must be reported.
    if document.get("capabilities") not in (None, []):
        moved.pop("capabilities", None)
    rest = {key: value for key, value in document["metadata"].items() if key not in ("endpoint", "tools")}
    return native | moved | ({"metadata": rest} if rest else {})


def metadata_to_native(document: dict[str, Any]) -> dict[str, Any]:
    """Return the endpoint and the tools under `metadata`, unless null, as fields of the native format."""
    endpoint, tools = document["metadata"].get("endpoint"), document["metadata"].get("tools")
    native = {} if endpoint is None else {"endpoint": endpoint}
    if tools is not None:
        native["capabilities"] = [_to_capability(tool) for tool in tools] if isinstance(tools, list) else tools
    return native


def _to_capability(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    capability = {key: value for key, value in tool.items() if key not in ("capability", "name")}
    return capability | {"name": tool["capability"]} if "capability" in tool else capability


def path_in_metadata(path: Path) -> Path:
    """Return the path in the request of a field that `metadata_to_native` returned."""
    if path is None:
        return None
    parent, step = path
    if parent is None:
        return TOOLS if step == "capabilities" else (_METADATA, step)
    return path_in_metadata(parent), "capability" if step == "name" and parent[0] == _CAPABILITIES else step


def absent_endpoints(document: dict[str, Any]) -> set[Path]:
    """Return those of the two paths for an endpoint at which the request has none."""
    sent = {(None, "endpoint"): document.get("endpoint"), _ENDPOINT: document["metadata"].get("endpoint")}
    return {path for path, endpoint in sent.items() if endpoint is None}


def find_tool_violations(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield violations of the rules for tools that do not apply to capabilities of the native format."""
    tools = document["metadata"].get("tools")
    if tools is None:
        return
    if not isinstance(tools, list) or len(tools) > MAX_CAPABILITIES:
        yield TOOLS, f"must be a list of at most {MAX_CAPABILITIES:,} tools, not {describe_value(tools)}"
        return
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            yield (TOOLS, index), f"must be an object, not {describe_value(tool)}"
        elif "function_name" not in tool:
            yield ((TOOLS, index), "function_name"), f"is required: {_WORD_DESCRIPTION}"
        elif tool["function_name"] is None:
            yield ((TOOLS, index), "function_name"), f"must be {_WORD_DESCRIPTION}, not null"


def find_conflicts(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield the fields that were sent in two places with different values, and the missing required fields."""
    metadata = document["metadata"]
    first, second = document.get("endpoint"), metadata.get("endpoint")
    if first is None and second is None:
        yield _ENDPOINT, "is required, here or as endpoint"
    elif first is not None and second is not None and first != second:
        yield _ENDPOINT, f"must equal endpoint ({describe_value(first)}) or be omitted, not {describe_value(second)}"
    if document.get("capabilities") and metadata.get("tools") is not None:
        yield TOOLS, "must be omitted if capabilities is set"
