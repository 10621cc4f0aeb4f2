"""A declared function of the agent: its capabilities, its dependencies, and their injection."""

import copy
import functools
import inspect
import keyword
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp_mesh_client.agent.injected_dependency import Dependency, DependencyBinding, ToolCaller
from mcp_mesh_client.agent.registration_values import check_dependency, check_word
from mcp_mesh_client.agent.suspect_providers import SuspectProviders
from mcp_mesh_client.agent.tool_errors import reported_to_caller
from mcp_mesh_client.errors import InvalidData

_log = logging.getLogger("mcp_mesh_client")

_NON_WORD = re.compile(r"\W")
InjectedParameters = dict[str, tuple[int | None, Dependency]]
"""The dependency of each parameter, with its position unless it is keyword-only."""


class AgentFunction:
    """One declared function of the agent, with its capabilities and dependencies.

    `name` is the name of its tool. `capabilities` are objects with a `capability`; `dependencies` are the required
    capabilities. `wrapper` is called in place of `original`: it injects the dependencies into the parameters with their
    names, and its signature omits these parameters.
    """

    def __init__(
        self,
        original: Callable[..., Any],
        name: str,
        capabilities: Sequence[Mapping[str, Any]],
        dependencies: Sequence[str | Mapping[str, Any]],
        caller: ToolCaller,
        timeout: float,
    ) -> None:
        self.original = original
        self.name = name
        self.capabilities: tuple[Mapping[str, Any], ...] = tuple(capabilities)
        self.description: str | None = inspect.getdoc(original)
        self.input_schema: Mapping[str, Any] | None = None
        self.dependencies: dict[str, DependencyBinding] = _bind_dependencies(dependencies, caller.suspects)
        self.wrapper: Callable[..., Any] = original
        if injected := self._injected_parameters(caller, timeout):
            self.wrapper = _inject(original, injected)

    def bound_to(self, instance: object) -> "AgentFunction":
        """Return this function as a method of an object."""
        bound = copy.copy(self)
        bound.wrapper = self.wrapper.__get__(instance)
        return bound

    @property
    def qualified_name(self) -> str:
        """The module and the qualified name of the function."""
        return f"{self.original.__module__}.{self.original.__qualname__}"

    def tool_specs(self) -> list[dict[str, Any]]:
        """Return the tools that register the function: one for each capability, the first with its own name."""
        dependencies = [binding.spec for binding in self.dependencies.values()]
        shared = {
            "description": self.description,
            "input_schema": self.input_schema,
            "dependencies": dependencies or None,
        }
        common = {key: value for key, value in shared.items() if value}
        names = [self.name, *(str(each["capability"]) for each in self.capabilities[1:])]
        return [
            {"function_name": name} | common | dict(spec) for name, spec in zip(names, self.capabilities, strict=True)
        ]

    def _injected_parameters(self, caller: ToolCaller, timeout: float) -> InjectedParameters:
        """Return the parameters of a function that receive dependencies."""
        parameters = inspect.signature(self.original).parameters
        is_async = inspect.iscoroutinefunction(self.original)
        injected: InjectedParameters = {}
        for binding in self.dependencies.values():
            name = parameter_name(binding.capability)
            parameter = parameters.get(name)
            if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                _log.info(
                    "dependency_parameter_missing function=%s capability=%s parameter=%s",
                    self.qualified_name,
                    binding.capability,
                    name,
                )
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise InvalidData(
                    name, f"{self.qualified_name}: {name} must not be positional-only to receive a dependency"
                )
            position = list(parameters).index(name) if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else None
            injected[name] = position, Dependency(binding, caller, timeout, is_async=is_async)
        return injected


def parameter_name(capability: str) -> str:
    """Return the parameter name for a capability: `_` replaces each character that a name cannot contain."""
    name = _NON_WORD.sub("_", capability)
    return f"{name}_" if keyword.iskeyword(name) else name


def _bind_dependencies(
    dependencies: Sequence[str | Mapping[str, Any]], suspects: SuspectProviders
) -> dict[str, DependencyBinding]:
    if isinstance(dependencies, str | Mapping) or not isinstance(dependencies, Sequence):
        raise InvalidData("dependencies", "dependencies: expected a list of capabilities or of objects with one")
    bindings: dict[str, DependencyBinding] = {}
    for at, spec in enumerate(dependencies):
        field = f"dependencies[{at}]"
        capability = spec.get("capability") if isinstance(spec, Mapping) else spec
        if not isinstance(capability, str) or not capability:
            raise InvalidData(f"{field}.capability", f"{field}: expected a capability's name or an object with one")
        if check_word(capability, f"{field}.capability") in bindings:
            raise InvalidData(f"{field}.capability", f"{field}: {capability} is declared twice")
        if isinstance(spec, Mapping):
            check_dependency(spec, f"{field}.")
        bindings[capability] = DependencyBinding(capability, spec, suspects)
    return bindings


def _inject(original: Callable[..., Any], injected: InjectedParameters) -> Callable[..., Any]:
    """Wrap a function: each call receives the dependencies that are resolved at that time."""

    def with_dependencies(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        for name, (position, dependency) in injected.items():
            # An argument that the caller passes, as tests do, is not replaced.
            if name not in kwargs and (position is None or position >= len(args)):
                kwargs[name] = dependency if dependency.provider is not None else None
        return kwargs

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with reported_to_caller():
                return await original(*args, **with_dependencies(args, kwargs))

    else:

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with reported_to_caller():
                return original(*args, **with_dependencies(args, kwargs))

    signature = inspect.signature(original)
    visible = [each for name, each in signature.parameters.items() if name not in injected]
    wrapper.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {name: value for name, value in original.__annotations__.items() if name not in injected}
    return wrapper
