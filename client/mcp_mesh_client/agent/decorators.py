"""`@mesh_agent` and `@tool`: what a function or a class is in the mesh."""

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from mcp_mesh_client.agent.autostart import DECORATOR_ORDER_HINT
from mcp_mesh_client.agent.env import check_duration
from mcp_mesh_client.agent.function import AgentFunction
from mcp_mesh_client.agent.local_agent import DURATION_OPTIONS
from mcp_mesh_client.agent.process import current_process
from mcp_mesh_client.config import parse_urls
from mcp_mesh_client.errors import DecoratorOrderError, InvalidData
from mcp_mesh_client.validation import check_json

T = TypeVar("T", bound=Callable[..., Any])
DependencySpecs = Sequence[str | Mapping[str, Any]]

# On a decorated class, itself; on a method, its function.
_CLASS_MARKER, _METHOD_MARKER = "__mesh_class__", "__mesh_function__"


class AgentOptions(TypedDict, total=False):
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
    dependencies: DependencySpecs = (),
    **options: Unpack[AgentOptions],
) -> Callable[[T], T]:
    """Let a function, or the objects of a class, be part of the agent that this process is.

    Over a function: it has the `capability`, or all `capabilities`, of this `version` and with these `tags`; its own
    name unless given. Of its `dependencies`, capabilities or objects with a `capability`, `version`, `tags` and more,
    it is handed those that a parameter is named for: a Dependency to call, or None while nobody provides it. Such
    parameters are no part of its signature any more. It stands below `@server.tool()`.

    Over a class: an object made of it has what stands in its `capabilities`, and its methods marked with `@tool()`.
    Raises InvalidData and DecoratorOrderError.
    """
    said = _checked_options(options)

    def declare(decorated: T) -> T:
        if inspect.isclass(decorated):
            if capability is not None or capabilities is not None or dependencies:
                raise InvalidData("capabilities", "capabilities: for a class, set self.capabilities instead")
            current_process().agent.set_options(**said)
            return _decorate_class(decorated)  # type: ignore[return-value]
        check_decorator_order(decorated)
        function = _new_function(
            decorated, None, _capability_specs(decorated, capability, capabilities, version, tags), dependencies
        )
        current_process().agent.set_options(**said)
        current_process().agent.add_function(function)
        return function.wrapper  # type: ignore[return-value]

    return declare


def tool(
    name: str | None = None,
    *,
    capability: str | None = None,
    version: str | None = None,
    tags: Sequence[str] | None = None,
    dependencies: DependencySpecs = (),
) -> Callable[[T], T]:
    """Let a method be a tool of the agent that its object is, by this name, else its own.

    It does what the object's `capabilities` say under that name or the `capability`; the rest is as over a function.
    """

    def mark(method: T) -> T:
        abilities = _capability_specs(method, capability or name, None, version, tags)
        function = _new_function(method, name, abilities, dependencies)
        setattr(function.wrapper, _METHOD_MARKER, function)
        return function.wrapper  # type: ignore[return-value]

    return mark


def check_decorator_order(decorated: Any) -> None:
    """Raise DecoratorOrderError for what a server has for a tool already: it would never hand over a dependency."""
    if not inspect.isroutine(decorated):
        if callable(inner := getattr(decorated, "fn", None)):
            raise DecoratorOrderError(f"{inner.__name__} is already registered as a tool: {DECORATOR_ORDER_HINT}")
        raise InvalidData("function", f"function: @mesh_agent decorates a function or a class, not {decorated!r:.100}")
    if "mcp" in sys.modules and any(_is_sdk_tool(decorated, held) for held in gc.get_referrers(decorated)):
        raise DecoratorOrderError(f"{decorated.__qualname__} is already registered as a tool: {DECORATOR_ORDER_HINT}")


def _is_sdk_tool(function: Any, holder: Any) -> bool:
    """Tell whether this is what the SDK keeps of a tool: an object or, in older Pythons, its dict."""
    fields = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
    return fields.get("fn") is function and "fn_metadata" in fields


def _checked_options(options: AgentOptions) -> dict[str, Any]:
    """Return what is said of the agent as a whole, checked."""
    if unknown := sorted(options.keys() - AgentOptions.__annotations__.keys()):
        raise TypeError(f"mesh_agent() got an unexpected keyword argument {unknown[0]!r}")
    said: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for name in DURATION_OPTIONS & said.keys():
        check_duration(said[name], name)
    if "registry_endpoint" in said:
        said["registry_url"] = said.pop("registry_endpoint")
    if "registry_url" in said:
        parse_urls(said["registry_url"], "registry_url")
    return said


def _new_function(
    original: Callable[..., Any],
    name: str | None,
    capability_specs: Iterable[dict[str, Any]],
    dependencies: DependencySpecs,
) -> AgentFunction:
    agent = current_process().agent
    timeout = agent.environment.call_timeout
    return AgentFunction(original, name or original.__name__, tuple(capability_specs), dependencies, agent, timeout)


def _capability_specs(
    function: Callable[..., Any],
    capability: str | None,
    capabilities: Sequence[str | Mapping[str, Any]] | None,
    version: str | None,
    tags: Sequence[str] | None,
) -> Iterator[dict[str, Any]]:
    """Yield what a function can do, each with its `capability`."""
    if capability is not None and capabilities is not None:
        raise InvalidData("capabilities", "capabilities: pass capability or capabilities, not both")
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


def _decorate_class(decorated: type) -> type:
    """Let each object of a class be declared once it is made; of subclasses, once it is made so far."""
    made = decorated.__init__  # type: ignore[misc]

    @functools.wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        if getattr(type(self), _CLASS_MARKER) is decorated:
            current_process().agent.add_instance(
                f"{decorated.__module__}.{decorated.__qualname__}", self, tuple(_tool_methods(self))
            )

    decorated.__init__ = init  # type: ignore[misc]
    setattr(decorated, _CLASS_MARKER, decorated)
    return decorated


def _tool_methods(instance: object) -> Iterator[AgentFunction]:
    for name in dir(type(instance)):
        function = getattr(inspect.getattr_static(type(instance), name), _METHOD_MARKER, None)
        if function is not None:
            yield function.bound_to(instance)
