"""`@mesh_agent` and `@tool`: what a function or a class is in the mesh."""

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from mcp_mesh_client.agent.autostart import RIGHT_ORDER
from mcp_mesh_client.agent.env import check_interval
from mcp_mesh_client.agent.function import Function
from mcp_mesh_client.agent.local_agent import DURATIONS
from mcp_mesh_client.agent.process import present
from mcp_mesh_client.config import read_urls
from mcp_mesh_client.errors import InvalidData, WrongOrder
from mcp_mesh_client.validation import check_json

T = TypeVar("T", bound=Callable[..., Any])
Dependencies = Sequence[str | Mapping[str, Any]]

# On a decorated class, itself; on a method, its function.
_CLASS, _METHOD = "__mesh_class__", "__mesh_function__"


class Whole(TypedDict, total=False):
    """What a declaration may say of the agent as a whole; the environment comes first.

    `name` is for people. `health_interval`: the seconds between heartbeats; `timeout_threshold` and
    `eviction_threshold`: those of silence until the agent is degraded, and until it is expired. Of several the shortest
    counts. The registry's URL goes by either name.
    """

    name: str | None
    namespace: str | None
    security_context: str | None
    health_interval: float | None
    timeout_threshold: float | None
    eviction_threshold: float | None
    registry_url: str | None
    registry_endpoint: str | None


def mesh_agent(
    *,
    capability: str | None = None,
    capabilities: Sequence[str | Mapping[str, Any]] | None = None,
    version: str | None = None,
    tags: Sequence[str] | None = None,
    dependencies: Dependencies = (),
    **whole: Unpack[Whole],
) -> Callable[[T], T]:
    """Let a function, or the objects of a class, be part of the agent that this process is.

    Over a function: it has the `capability`, or all `capabilities`, of this `version` and with these `tags`; its own
    name unless given. Of its `dependencies`, capabilities or objects with a `capability`, `version`, `tags` and more,
    it is handed those that a parameter is named for: a Dependency to call, or None while nobody provides it. Such
    parameters are no part of its signature any more. It stands below `@server.tool()`.

    Over a class: an object made of it has what stands in its `capabilities`, and its methods marked with `@tool()`.
    Raises InvalidData and WrongOrder.
    """
    said = _said(whole)

    def declare(decorated: T) -> T:
        if inspect.isclass(decorated):
            if capability is not None or capabilities is not None or dependencies:
                raise InvalidData("capabilities", "capabilities: over a class they stand in self.capabilities")
            present().agent.say(**said)
            return _declare_class(decorated)  # type: ignore[return-value]
        check_order(decorated)
        function = _function(
            decorated, None, _abilities(decorated, capability, capabilities, version, tags), dependencies
        )
        present().agent.say(**said)
        present().agent.add(function)
        return function.given  # type: ignore[return-value]

    return declare


def tool(
    name: str | None = None,
    *,
    capability: str | None = None,
    version: str | None = None,
    tags: Sequence[str] | None = None,
    dependencies: Dependencies = (),
) -> Callable[[T], T]:
    """Let a method be a tool of the agent that its object is, by this name, else its own.

    It does what the object's `capabilities` say under that name or the `capability`; the rest is as over a function.
    """

    def mark(method: T) -> T:
        abilities = _abilities(method, capability or name, None, version, tags)
        function = _function(method, name, abilities, dependencies)
        setattr(function.given, _METHOD, function)
        return function.given  # type: ignore[return-value]

    return mark


def check_order(decorated: Any) -> None:
    """Raise WrongOrder for what a server has for a tool already: it would never hand over a dependency."""
    if not inspect.isroutine(decorated):
        if callable(inner := getattr(decorated, "fn", None)):
            raise WrongOrder(f"{inner.__name__} is a {type(decorated).__name__} of a server already: {RIGHT_ORDER}")
        raise InvalidData(
            "function", f"function: @mesh_agent stands over a function or a class, not {decorated!r:.100}"
        )
    if "mcp" in sys.modules and any(_is_tool_of(decorated, held) for held in gc.get_referrers(decorated)):
        raise WrongOrder(f"{decorated.__qualname__} is a tool of a server already: {RIGHT_ORDER}")


def _is_tool_of(function: Any, holder: Any) -> bool:
    """Tell whether this is what the SDK keeps of a tool: an object or, in older Pythons, its dict."""
    fields = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
    return fields.get("fn") is function and "fn_metadata" in fields


def _said(whole: Whole) -> dict[str, Any]:
    """Return what is said of the agent as a whole, checked."""
    if unknown := sorted(whole.keys() - Whole.__annotations__.keys()):
        raise TypeError(f"mesh_agent() got an unexpected keyword argument {unknown[0]!r}")
    said: dict[str, Any] = {name: value for name, value in whole.items() if value is not None}
    for name in DURATIONS & said.keys():
        check_interval(said[name], name)
    if "registry_endpoint" in said:
        said["registry_url"] = said.pop("registry_endpoint")
    if "registry_url" in said:
        read_urls(said["registry_url"], "registry_url")
    return said


def _function(
    original: Callable[..., Any], name: str | None, abilities: Iterable[dict[str, Any]], dependencies: Dependencies
) -> Function:
    agent = present().agent
    timeout = agent.environment.call_timeout
    return Function(original, name or original.__name__, tuple(abilities), dependencies, agent, timeout)


def _abilities(
    function: Callable[..., Any],
    capability: str | None,
    capabilities: Sequence[str | Mapping[str, Any]] | None,
    version: str | None,
    tags: Sequence[str] | None,
) -> Iterator[dict[str, Any]]:
    """Yield what a function can do, each with its `capability`."""
    if capability is not None and capabilities is not None:
        raise InvalidData("capabilities", "capabilities: expected either these or a capability, not both")
    if isinstance(capabilities, str | Mapping) or capabilities == []:
        raise InvalidData("capabilities", "capabilities: expected a list of names or of objects with one")
    if isinstance(tags, str):
        raise InvalidData("tags", "tags: expected a list of tags, not one string")
    shared = {"version": version, "tags": None if tags is None else list(tags)}
    for at, given in enumerate([capability or function.__name__] if capabilities is None else capabilities):
        own = dict(given) if isinstance(given, Mapping) else {"name": given}
        named = own.pop("name", None)
        if not isinstance(named, str) or not named:
            raise InvalidData(f"capabilities[{at}].name", f"capabilities[{at}]: expected a name, not {named!r:.100}")
        check_json(own, f"capabilities[{at}].")
        yield {"capability": named} | {key: value for key, value in shared.items() if value is not None} | own


def _declare_class(kind: type) -> type:
    """Let each object of a class be declared once it is made; of subclasses, once it is made so far."""
    made = kind.__init__  # type: ignore[misc]

    @functools.wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        if getattr(type(self), _CLASS) is kind:
            present().agent.add_instance(f"{kind.__module__}.{kind.__qualname__}", self, tuple(_methods(self)))

    kind.__init__ = init  # type: ignore[misc]
    setattr(kind, _CLASS, kind)
    return kind


def _methods(instance: object) -> Iterator[Function]:
    for name in dir(type(instance)):
        function = getattr(inspect.getattr_static(type(instance), name), _METHOD, None)
        if function is not None:
            yield function.bound_to(instance)
