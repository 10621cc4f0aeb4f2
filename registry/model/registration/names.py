"""Checks the characters of the names in a registration: of the agent, its functions, capabilities, tags, categories."""

from collections.abc import Iterator
from typing import Any, Final

from registry.model.registration.tools_format import TOOLS, is_tools_format
from registry.model.validation.errors import Path, Violation
from registry.model.validation.name_characters import are_valid_names, find_name_problem

# The names of a function or dependency, and whether their letters must be of one script.
_NAME_FIELDS: Final = {"name": True, "capability": True, "tags": True, "function_name": False, "category": False}


def find_name_violations(document: object) -> Iterator[Violation]:
    """Yield the names in a registration that break the rules; values of the wrong type are skipped."""
    if not isinstance(document, dict):
        return
    for field in ("name", "agent_type"):
        yield from _check_names(document.get(field), (None, field), one_script=False)
    yield from find_function_violations(document.get("dependencies"), (None, "dependencies"))
    yield from find_function_violations(document.get("capabilities"), (None, "capabilities"))
    if is_tools_format(document):
        yield from find_function_violations(document["metadata"].get("tools"), TOOLS)


def find_function_violations(functions: object, path: Path) -> Iterator[Violation]:
    """Yield the names in a list of capabilities, tools or dependencies that break the rules."""
    for index, function in enumerate(functions if isinstance(functions, list) else ()):
        if not isinstance(function, dict):
            yield from _check_names(function, (path, index), one_script=True)
            continue
        for field, one_script in _NAME_FIELDS.items():
            if field in function:
                yield from _check_names(function[field], ((path, index), field), one_script=one_script)
        if "dependencies" in function:
            yield from find_function_violations(function["dependencies"], ((path, index), "dependencies"))


def _check_names(value: Any, path: Path, *, one_script: bool) -> Iterator[Violation]:
    """Yield the violations in a name or in a list of names, which may be nested, as alternative tags are."""
    if isinstance(value, str):
        if (problem := find_name_problem(value, one_script=one_script)) is not None:
            yield path, problem
    elif isinstance(value, list):
        words = [each for each in value if isinstance(each, str)]
        if len(words) == len(value) and are_valid_names(words, one_script=one_script):
            return
        for index, each in enumerate(value):
            yield from _check_names(each, (path, index), one_script=one_script)
