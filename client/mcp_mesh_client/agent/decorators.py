"""The decorators `@mesh_agent` and `@tool`, which declare functions and classes as parts of the agent."""

import functools
import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

from mcp_mesh_client.agent.agent_function import AgentFunction
from mcp_mesh_client.agent.agent_process import current_process
from mcp_mesh_client.agent.autostart import DECORATOR_ORDER_HINT
from mcp_mesh_client.agent.options import AgentOptions, checked_options
from mcp_mesh_client.agent.registration_values import check_capabilities, check_capability, check_word
from mcp_mesh_client.errors import DecoratorOrderError, InvalidData

T = TypeVar("T", bound=Callable[..., Any])
DependencySpecs = Sequence[str | Mapping[str, Any]]

# Attributes that mark a decorated class (the value is the class itself) and a method (its AgentFunction).
_CLASS_MARKER, _METHOD_MARKER = "__mesh_class__", "__mesh_function__"


def mesh_agent(
    *,
    capability: str | None = None,
    capabilities: Sequence[str | Mapping[str, Any]] | None = None,
    version: str | None = None,
    tags: Sequence[str] | None = None,
    dependencies: DependencySpecs = (),
    **options: Unpack[AgentOptions],
) -> Callable[[T], T]:
    """Declare a function, or the objects of a class, as part of the agent of this process.

    A function provides the `capability`, or all `capabilities`, with this `version` and these `tags`; the default is
    its own name. `dependencies` are capabilities, or objects with a `capability`, `version`, `tags` and more. Each is
    injected into the parameter with its name: a Dependency to call, or None while it is unresolved. These parameters
    are removed from the signature. The decorator goes below `@server.tool()`. `options` are described in AgentOptions.

    For a class, each object provides its `capabilities`, and its methods marked with `@tool()`. Raises InvalidData,
    with the name of the argument as its `field`, and DecoratorOrderError.
    """
    checked = checked_options("mesh_agent", options)

    def declare(decorated: T) -> T:
        if inspect.isclass(decorated):
            _check_class_arguments(
                capability=capability, capabilities=capabilities, version=version, tags=tags, dependencies=dependencies
            )
            current_process().agent.set_options(**checked)
            return _decorate_class(decorated)  # type: ignore[return-value]
        check_decorator_order(decorated)
        function = _new_function(
            decorated, None, _capability_specs(decorated, capability, capabilities, version, tags), dependencies
        )
        current_process().agent.set_options(**checked)
        current_process().agent.add_function(function)
        return function.wrapper  # type: ignore[return-value]

    return declare


_CLASS_ALTERNATIVES = {
    "capability": "add it to self.capabilities in __init__, or pass it to @tool()",
    "capabilities": "set self.capabilities in __init__",
    "version": "pass it to @tool(), or add it to the entry in self.capabilities",
    "tags": "pass them to @tool(), or add them to the entry in self.capabilities",
    "dependencies": "pass them to @tool() of the method that uses them",
}


def _check_class_arguments(**arguments: object) -> None:
    """Raise InvalidData for an argument that belongs to a function, not to a class."""
    for name, value in arguments.items():
        if value not in (None, ()):
            raise InvalidData(name, f"{name}: not for a class; {_CLASS_ALTERNATIVES[name]}")


def tool(
    name: str | None = None,
    *,
    capability: str | None = None,
    version: str | None = None,
    tags: Sequence[str] | None = None,
    dependencies: DependencySpecs = (),
) -> Callable[[T], T]:
    """Declare a method as a tool of the agent; the default name is the name of the method.

    It provides `capability`, by default the capability with its own name, merged with the entry of that name in the
    `capabilities` of the object. All other arguments are those of `@mesh_agent`.
    """

    def mark(method: T) -> T:
        specs = _capability_specs(method, capability or name, None, version, tags)
        function = _new_function(method, name, specs, dependencies)
        setattr(function.wrapper, _METHOD_MARKER, function)
        return function.wrapper  # type: ignore[return-value]

    return mark


def check_decorator_order(decorated: Any) -> None:
    """Raise DecoratorOrderError for a function that is already a tool, because it would get no dependencies."""
    if not inspect.isroutine(decorated):
        if callable(inner := getattr(decorated, "fn", None)):
            raise DecoratorOrderError(f"{inner.__name__} is already registered as a tool: {DECORATOR_ORDER_HINT}")
        raise InvalidData("function", f"function: @mesh_agent decorates a function or a class, not {decorated!r:.100}")
    if "mcp" in sys.modules and any(_is_sdk_tool(decorated, each) for each in gc.get_referrers(decorated)):
        raise DecoratorOrderError(f"{decorated.__qualname__} is already registered as a tool: {DECORATOR_ORDER_HINT}")


def _is_sdk_tool(function: Any, holder: Any) -> bool:
    """Return whether an object that holds a function belongs to a tool of the MCP SDK."""
    fields = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
    return fields.get("fn") is function and "fn_metadata" in fields


def _new_function(
    original: Callable[..., Any],
    name: str | None,
    capability_specs: Iterable[dict[str, Any]],
    dependencies: DependencySpecs,
) -> AgentFunction:
    agent = current_process().agent
    timeout, capabilities = agent.environment.call_timeout, tuple(capability_specs)
    return AgentFunction(original, name or original.__name__, capabilities, dependencies, agent.caller, timeout)


def _capability_specs(
    function: Callable[..., Any],
    capability: str | None,
    capabilities: Sequence[str | Mapping[str, Any]] | None,
    version: str | None,
    tags: Sequence[str] | None,
) -> Iterator[dict[str, Any]]:
    """Yield the capabilities of a function as dicts with the key `capability`."""
    if capability is not None and capabilities is not None:
        raise InvalidData("capabilities", "capabilities: pass capability or capabilities, not both")
    if capabilities is not None:
        check_capabilities(capabilities)
        if not capabilities:
            raise InvalidData("capabilities", "capabilities: expected at least one")
    if isinstance(tags, str):
        raise InvalidData("tags", "tags: expected a list of tags, not one string")
    shared = {"version": version, "tags": None if tags is None else list(tags)}
    check_capability(shared)
    for given in (capability or function.__name__,) if capabilities is None else capabilities:
        own = dict(given) if isinstance(given, Mapping) else {"name": given}
        name = check_word(own.pop("name"), "capability")
        yield {"capability": name} | {key: value for key, value in shared.items() if value is not None} | own


def _decorate_class(decorated: type) -> type:
    """Declare each object of a class when its constructor, or that of a decorated subclass, returns."""
    original_init = decorated.__init__  # type: ignore[misc]

    @functools.wraps(original_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
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
