"""A function that belongs to the agent: what it can do, what it needs, and how it is handed what it needs."""

import copy
import functools
import inspect
import keyword
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp_mesh_client.agent.dependency import Dependency, DependencyBinding, ToolCaller
from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.validation import check_json

_log = logging.getLogger("mcp_mesh_client")

_NON_WORD = re.compile(r"\W")
InjectedParameters = dict[str, tuple[int | None, Dependency]]
"""By the parameter: its place among the positional ones, if it is one, and what it is given."""


class AgentFunction:
    """One function of the agent.

    `name` is that of its tool. `capabilities` are what it can do, each an object with a `capability`; `dependencies`
    what it
    needs, by capability. `wrapper` is what is to be called in place of `original`: it hands over the dependencies whose
    capabilities the parameters are named for, and has a signature without them.
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
        self.dependencies: dict[str, DependencyBinding] = _bind_dependencies(dependencies)
        self.wrapper: Callable[..., Any] = original
        if injected := self._injected_parameters(caller, timeout):
            self.wrapper = _inject(original, injected)

    def bound_to(self, instance: object) -> "AgentFunction":
        """Return the same function as a method of this object."""
        bound = copy.copy(self)
        bound.wrapper = self.wrapper.__get__(instance)
        return bound

    @property
    def qualified_name(self) -> str:
        """Where it is defined."""
        return f"{self.original.__module__}.{self.original.__qualname__}"

    def tool_specs(self) -> list[dict[str, Any]]:
        """Return what a registration says of it: a tool for each capability, the first by the function's own name."""
        needs = [link.spec for link in self.dependencies.values()]
        shared = {"description": self.description, "input_schema": self.input_schema, "dependencies": needs or None}
        said = {key: value for key, value in shared.items() if value}
        names = [self.name, *(str(each["capability"]) for each in self.capabilities[1:])]
        return [
            {"function_name": name} | said | dict(each) for name, each in zip(names, self.capabilities, strict=True)
        ]

    def _injected_parameters(self, caller: ToolCaller, timeout: float) -> InjectedParameters:
        """Return the parameters that are handed dependencies."""
        parameters = inspect.signature(self.original).parameters
        awaited = inspect.iscoroutinefunction(self.original)
        injected: InjectedParameters = {}
        for link in self.dependencies.values():
            name = parameter_name(link.capability)
            parameter = parameters.get(name)
            if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                _log.info(
                    "dependency_parameter_missing function=%s capability=%s parameter=%s",
                    self.qualified_name,
                    link.capability,
                    name,
                )
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise InvalidData(
                    name, f"{self.qualified_name}: {name} must not be positional-only to receive a dependency"
                )
            place = list(parameters).index(name) if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else None
            injected[name] = place, Dependency(link, caller, timeout, is_async=awaited)
        return injected


def parameter_name(capability: str) -> str:
    """Return how a parameter is called that is handed this capability: its name, `_` for what no name may have."""
    name = _NON_WORD.sub("_", capability)
    return f"{name}_" if keyword.iskeyword(name) else name


def _bind_dependencies(dependencies: Sequence[str | Mapping[str, Any]]) -> dict[str, DependencyBinding]:
    if isinstance(dependencies, str | Mapping) or not isinstance(dependencies, Sequence):
        raise InvalidData("dependencies", "dependencies: expected a list of capabilities or of objects with one")
    links: dict[str, DependencyBinding] = {}
    for at, spec in enumerate(dependencies):
        field = f"dependencies[{at}]"
        capability = spec.get("capability") if isinstance(spec, Mapping) else spec
        if not isinstance(capability, str) or not capability:
            raise InvalidData(f"{field}.capability", f"{field}: expected a capability's name or an object with one")
        if capability in links:
            raise InvalidData(f"{field}.capability", f"{field}: {capability} is declared twice")
        if isinstance(spec, Mapping):
            check_json(spec, f"{field}.")
        links[capability] = DependencyBinding(capability, spec)
    return links


def _inject(original: Callable[..., Any], injected: InjectedParameters) -> Callable[..., Any]:
    """Return a function that calls the original one with what is there at that moment."""

    def complete(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        for name, (place, dependency) in injected.items():
            # Who hands one over himself, as tests do, is not overruled.
            if name not in kwargs and (place is None or place >= len(args)):
                kwargs[name] = dependency if dependency.provider is not None else None
        return kwargs

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def given(*args: Any, **kwargs: Any) -> Any:
            return await original(*args, **complete(args, kwargs))

    else:

        @functools.wraps(original)
        def given(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **complete(args, kwargs))

    signature = inspect.signature(original)
    shown = [each for name, each in signature.parameters.items() if name not in injected]
    given.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    given.__annotations__ = {name: value for name, value in original.__annotations__.items() if name not in injected}
    return given
