"""The options of the whole agent, which each declaration, `serve` and `announce` take, and their checks."""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from mcp_mesh_client.agent.registration_values import (
    check_annotations,
    check_labels,
    check_line,
    check_metadata,
    check_namespace,
    check_zone,
)
from mcp_mesh_client.config import parse_urls
from mcp_mesh_client.durations import check_duration
from mcp_mesh_client.load import Load, check_load

# Options in seconds. If several declarations set one of them, the shortest value applies.
DURATION_OPTIONS = frozenset({"health_interval", "timeout_threshold", "eviction_threshold"})
# If several declarations set one of these, the values are merged.
MAPPING_OPTIONS = frozenset({"labels", "annotations", "metadata"})


class AgentOptions(TypedDict, total=False):
    """Options of the whole agent, which take precedence over environment variables.

    `name` is a display name, with which the id begins. `labels` and `annotations` are those of Kubernetes; `metadata`
    is any JSON object. `load` is the load for the strategy `least_loaded`, a number or a function that returns one
    quickly; it is sent with each heartbeat. `zone` is the label of this name.

    `health_interval`: seconds between heartbeats, default 5; `timeout_threshold` and `eviction_threshold`: seconds
    without a heartbeat until the agent is degraded, by default three intervals, and until it is expired, by default
    twice that. Durations may be texts, such as `500ms`. `registry_url` and `registry_endpoint` are the same option.
    """

    name: str | None
    namespace: str | None
    security_context: str | None
    labels: Mapping[str, str] | None
    annotations: Mapping[str, str] | None
    metadata: Mapping[str, Any] | None
    load: Load
    zone: str | None
    health_interval: float | str | None
    timeout_threshold: float | str | None
    eviction_threshold: float | str | None
    registry_url: str | None
    registry_endpoint: str | None


_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "name": check_line,
    "namespace": check_namespace,
    "security_context": check_line,
    "labels": check_labels,
    "annotations": check_annotations,
    "metadata": check_metadata,
    "load": check_load,
    "zone": check_zone,
    "registry_url": parse_urls,
    "registry_endpoint": parse_urls,
}


def checked_options(function: str, options: AgentOptions) -> dict[str, Any]:
    """Validate the options of the agent and return them.

    Raises InvalidData with the option's name as its field, TypeError for an unknown option of the function.
    """
    if unknown := sorted(options.keys() - AgentOptions.__annotations__.keys()):
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name in DURATION_OPTIONS:
            given[name] = check_duration(value, name)
        else:
            _CHECKS[name](value, name)
    if "registry_endpoint" in given:
        given["registry_url"] = given.pop("registry_endpoint")
    return given
