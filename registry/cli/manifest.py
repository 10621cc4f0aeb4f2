"""Parser for files of registrations: JSON or YAML, one or many."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

MAX_FILE_BYTES = 64 * 1024 * 1024
# YAML aliases repeat a value; this limits the values after expansion.
_MAX_EXPANDED_VALUES = 2_000_000
_MAX_DEPTH = 1000


class ManifestError(ValueError):
    """The error for a file that does not contain valid registrations; the message gives the reason."""


def read_manifest(raw: bytes) -> list[dict[str, Any]]:
    """Read a file with one registration, a list of registrations, `{"agents": [...]}`, or several documents.

    Raises ManifestError, also if two registrations have the same id: the second would replace the first.
    """
    if len(raw) > MAX_FILE_BYTES:
        raise ManifestError(f"larger than {MAX_FILE_BYTES >> 20} MiB; split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        registrations = list(_flatten_registrations(_parse_documents(text)))
        _check_values(registrations)
    except RecursionError:
        raise ManifestError("nested too deeply") from None
    if not registrations:
        raise ManifestError("contains no registration")
    _check_ids(registrations)
    return registrations


def registration_id(registration: Mapping[str, Any]) -> object:
    """Return the agent id in a registration: the field `id`, or `agent_id` in the tools format."""
    return registration.get("id") if registration.get("id") is not None else registration.get("agent_id")


def _parse_documents(text: str) -> Iterable[Any]:
    """Parse a sequence of JSON values; if the text is not JSON, parse YAML documents."""
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
    raise ManifestError(f"{constant} is not valid JSON")


def _yaml_documents(text: str, json_problem: str) -> list[Any]:
    import yaml  # type: ignore[import-untyped]

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """YAML loader that reads dates as strings, because JSON has no dates."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's interface
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        return [document for document in yaml.load_all(text, Loader=Loader) if document is not None]
    except (yaml.YAMLError, ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        raise ManifestError("; ".join(filter(None, (json_problem, f"as YAML: {message}")))) from error


def _flatten_registrations(documents: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for document in documents:
        agents = document.get("agents") if isinstance(document, dict) and registration_id(document) is None else None
        items = agents if agents is not None else document
        for item in items if isinstance(items, list) else [items]:
            if not isinstance(item, dict):
                raise ManifestError(f"a registration is an object with an id and an endpoint, not {item!r:.40}")
            yield item


def _check_values(registrations: list[dict[str, Any]]) -> None:
    iterators: list[Any] = [iter(registrations)]
    count = 0
    while iterators:
        for value in iterators[-1]:
            count += 1
            if count > _MAX_EXPANDED_VALUES or len(iterators) > _MAX_DEPTH:
                raise ManifestError(
                    f"expanded, it has more than {_MAX_EXPANDED_VALUES:,} values or is nested too deeply"
                )
            if isinstance(value, dict | list):
                iterators.append(iter(value.values() if isinstance(value, dict) else value))
                break
        else:
            iterators.pop()


def _check_ids(registrations: list[dict[str, Any]]) -> None:
    first_index: dict[str, int] = {}
    for index, registration in enumerate(registrations):
        agent_id = str(registration_id(registration))
        if registration_id(registration) is not None and agent_id in first_index:
            raise ManifestError(
                f"registrations {first_index[agent_id] + 1} and {index + 1} have the same id {agent_id!r:.100}"
            )
        first_index[agent_id] = index
