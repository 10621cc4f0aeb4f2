"""Registrations in a file: JSON or YAML, one or many, in any of the forms people keep them in."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

# Slow imports happen when a command runs, so that --help stays fast.
# ruff: noqa: PLC0415

MAX_FILE_BYTES = 64 * 1024 * 1024
# YAML can name a part again and again; written out, so many values may stand in a file.
_MAX_VALUES = 2_000_000
_MAX_DEPTH = 1000


class ManifestError(ValueError):
    """The file holds no registrations; the message says what is wrong."""


def read_manifest(raw: bytes) -> list[dict[str, Any]]:
    """Read one registration, a list of them, `{"agents": [...]}`, or several such documents one after the other.

    Raises BadFile; two of the same id are no registrations either, for only one of them could last.
    """
    if len(raw) > MAX_FILE_BYTES:
        raise ManifestError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB; split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"it is no UTF-8: {error.reason} at byte {error.start}") from error
    try:
        found = list(_flatten_registrations(_parse_documents(text)))
        _check_values(found)
    except RecursionError:
        raise ManifestError("it is nested too deep") from None
    if not found:
        raise ManifestError("there is no registration in it")
    _check_ids(found)
    return found


def registration_id(registration: Mapping[str, Any]) -> object:
    """Return what a registration has as its id."""
    return registration.get("id") if registration.get("id") is not None else registration.get("agent_id")


def _parse_documents(text: str) -> Iterable[Any]:
    """Read JSON values, one after the other, else YAML documents."""
    try:
        return list(_json_values(text))
    except json.JSONDecodeError as problem:
        return _yaml_documents(text, f"as JSON: {problem}" if text.lstrip()[:1] in ("{", "[") else "")


def _json_values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=_reject_constant)
    text = text.lstrip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def _reject_constant(constant: str) -> NoReturn:
    raise ManifestError(f"JSON has no {constant}")


def _yaml_documents(text: str, json_problem: str) -> list[Any]:
    import yaml  # type: ignore[import-untyped]

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Leaves dates as they are written: JSON has none."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return [document for document in yaml.load_all(text, Loader=Loader) if document is not None]
    except (yaml.YAMLError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise ManifestError("; ".join(filter(None, (json_problem, f"as YAML: {said}")))) from error


def _flatten_registrations(documents: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for document in documents:
        inside = document.get("agents") if isinstance(document, dict) and registration_id(document) is None else None
        several = inside if inside is not None else document
        for each in several if isinstance(several, list) else [several]:
            if not isinstance(each, dict):
                raise ManifestError(f"a registration is an object with an id and an endpoint, not {each!r:.40}")
            yield each


def _check_values(registrations: list[dict[str, Any]]) -> None:
    left: list[Any] = [iter(registrations)]
    count = 0
    while left:
        for value in left[-1]:
            count += 1
            if count > _MAX_VALUES or len(left) > _MAX_DEPTH:
                raise ManifestError(f"written out, it has more than {_MAX_VALUES:,} values, or is nested too deep")
            if isinstance(value, dict | list):
                left.append(iter(value.values() if isinstance(value, dict) else value))
                break
        else:
            left.pop()


def _check_ids(registrations: list[dict[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for at, registration in enumerate(registrations):
        agent_id = str(registration_id(registration))
        if registration_id(registration) is not None and agent_id in seen:
            raise ManifestError(f"registrations {seen[agent_id] + 1} and {at + 1} have the same id {agent_id!r:.100}")
        seen[agent_id] = at
