"""Checks of the values that a declaration registers, so that a wrong one raises where it is declared.

The rules are those of the registry, which checks each registration again.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mcp_mesh_client.errors import InvalidData
from mcp_mesh_client.request_validation import check_json

_BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\ufeff\u2028\u2029"
_LINE_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,253}")
_WORD = re.compile(f"[^{_BLANK}]{{1,253}}")
_JOINERS = "\u200c\u200d"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_NAME = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_LABEL_KEY = re.compile(f"(?:(?=.{{1,253}}/){_DNS_NAME}/)?{_LABEL_NAME}")
_ANNOTATION_KEY = re.compile(_LABEL_KEY.pattern, re.IGNORECASE)
_LABEL_VALUE = re.compile(f"(?:{_LABEL_NAME})?")
_MAX_ANNOTATIONS_BYTES = 256 * 1024
# Versions of semver.org with one to three numbers, and those of PEP 440.
_SEMVER = r"\d{1,9}(?:\.\d{1,9}){0,2}(?:-[0-9a-z-]+(?:\.[0-9a-z-]+)*)?(?:\+[0-9a-z-]+(?:\.[0-9a-z-]+)*)?"
_PEP_440 = (
    r"(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|beta|preview|pre|rc|a|b|c)[-_.]?\d*)?"
    r"(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[0-9a-z]+(?:[-_.][0-9a-z]+)*)?"
)
_VERSION = re.compile(f"v?(?:{_SEMVER}|{_PEP_440})", re.IGNORECASE)
# The parts of a version constraint: comparisons, and the hyphen of a range. The registry also parses the versions.
_CONSTRAINT_SEPARATOR = re.compile(r"[\s,|]+|(?<=[0-9A-Za-z*])(?=[<>=~^]|!=)")
_SIGN = r"(?:[<>=!~]=|=[<>]|~>|[<>=^~])"
_COMPARISON = re.compile(rf"-|{_SIGN}?v?(?:\d+!)?[0-9xX*][0-9A-Za-z*._+-]*")
_MAX_CONSTRAINT_CHARS = 256
_STRATEGIES = ("best", "round_robin", "random", "least_loaded", "sticky", "weighted", "local")
# The metadata of a registration also contains the endpoint and the tools.
_RESERVED_METADATA = frozenset({"endpoint", "tools"})


def check_namespace(value: object, field: str = "namespace") -> None:
    """Raise InvalidData unless a value is a namespace."""
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise _invalid(field, "1 to 63 lower-case letters, digits and inside also -", value)


def check_line(value: object, field: str) -> None:
    """Raise InvalidData unless a value is a text of one line, such as a name."""
    if not isinstance(value, str) or not _LINE_TEXT.fullmatch(value):
        raise _invalid(field, "1 to 253 characters without line breaks", value)
    _check_characters(value, field)


def check_word(value: object, field: str) -> str:
    """Return a name of a capability, or a tag. Raises InvalidData for any other value."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise _invalid(field, "1 to 253 characters without blanks", value)
    _check_characters(value, field)
    return value


def check_version(value: object, field: str = "version") -> None:
    """Raise InvalidData unless a value is a version of semver.org or of a Python package."""
    if not isinstance(value, str) or not _VERSION.fullmatch(value) or len(value) > 253:  # noqa: PLR2004
        raise _invalid(field, "a version such as 1.2.0, 2.0.0-rc.1 or 1.0rc1", value)


def check_constraint(value: object, field: str = "version") -> None:
    """Raise InvalidData unless a value has the form of a version constraint."""
    expected = "a constraint such as ^1.2 or >=1.0,<2.0"
    if not isinstance(value, str) or len(value) > _MAX_CONSTRAINT_CHARS:
        raise _invalid(field, f"{expected}, as a string of at most {_MAX_CONSTRAINT_CHARS} characters", value)
    without_blanks = re.sub(rf"({_SIGN})\s+", r"\1", value)
    for part in _CONSTRAINT_SEPARATOR.split(without_blanks):
        if part and not _COMPARISON.fullmatch(part):
            raise _invalid(field, expected, value)


def check_capability(spec: Mapping[str, Any], path: str = "") -> None:
    """Raise InvalidData for a capability that cannot be registered; `path` is the prefix of its field names."""
    check_json(spec, path)
    if spec.get("version") is not None:
        check_version(spec["version"], f"{path}version")
    for at, tag in enumerate(spec.get("tags") or ()):
        check_word(tag, f"{path}tags[{at}]")


def check_capabilities(capabilities: object, field: str = "capabilities") -> None:
    """Raise InvalidData unless a value is a list of names of capabilities, or of objects with a `name`."""
    if isinstance(capabilities, str | Mapping) or not isinstance(capabilities, Sequence):
        raise _invalid(field, "a list of names or of objects with one", capabilities)
    for at, given in enumerate(capabilities):
        path = f"{field}[{at}]"
        check_word(given.get("name") if isinstance(given, Mapping) else given, f"{path}.name")
        if isinstance(given, Mapping):
            check_capability(given, f"{path}.")


def check_dependency(spec: Mapping[str, Any], path: str) -> None:
    """Raise InvalidData for a dependency that cannot be registered; `path` is the prefix of its field names."""
    check_json(spec, path)
    namespace, strategy, version = spec.get("namespace"), spec.get("strategy"), spec.get("version")
    if namespace not in (None, "*"):
        check_namespace(namespace, f"{path}namespace")
    if strategy is not None and strategy not in _STRATEGIES:
        raise _invalid(f"{path}strategy", f"one of {', '.join(_STRATEGIES)}", strategy)
    if version is not None:
        check_constraint(version, f"{path}version")
    if isinstance(spec.get("tags"), str):
        raise _invalid(f"{path}tags", "a list of tags", spec["tags"])


def check_labels(value: object, field: str = "labels") -> None:
    """Raise InvalidData unless a value is a mapping of Kubernetes labels."""
    for key, text in _items(value, field):
        if not _LABEL_KEY.fullmatch(key):
            raise _invalid(field, "the keys of Kubernetes labels, such as tier or example.org/tier", key)
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise _invalid(f"{field}[{key}]", "at most 63 letters, digits and inside also - _ .", text)


def check_zone(value: object, field: str = "zone") -> None:
    """Raise InvalidData unless a value is a zone, which is registered as a label."""
    check_labels({"zone": value}, field)


def check_annotations(value: object, field: str = "annotations") -> None:
    """Raise InvalidData unless a value is a mapping of Kubernetes annotations."""
    size = 0
    for key, text in _items(value, field):
        if not _ANNOTATION_KEY.fullmatch(key):
            raise _invalid(field, "the keys of Kubernetes annotations, such as example.org/runbook", key)
        if not isinstance(text, str):
            raise _invalid(f"{field}[{key}]", "a string", text)
        size += len(f"{key}{text}".encode(errors="surrogatepass"))
    if size > _MAX_ANNOTATIONS_BYTES:
        raise InvalidData(field, f"{field}: expected at most {_MAX_ANNOTATIONS_BYTES >> 10} KiB, got {size} bytes")


def check_metadata(value: object, field: str = "metadata") -> None:
    """Raise InvalidData unless a value is a JSON object without the fields that the agent sets itself."""
    items = dict(_items(value, field))
    if reserved := sorted(_RESERVED_METADATA & items.keys()):
        raise InvalidData(f"{field}.{reserved[0]}", f"{field}.{reserved[0]}: is set by the agent; choose another name")
    check_json(items, f"{field}.")


def _check_characters(name: str, field: str) -> None:
    """Raise InvalidData for a name with a character that readers do not see, or with another normalization.

    The registry also checks the place of a joiner, and rejects letters of several scripts in a capability or tag.
    """
    for character in "" if name.isascii() else name:
        if unicodedata.category(character) in ("Cf", "Cn", "Co") and character not in _JOINERS:
            raise _invalid(field, f"no invisible or undefined character such as U+{ord(character):04X}", name)
    if not unicodedata.is_normalized("NFC", name):
        raise _invalid(field, "Unicode normalization form C (NFC)", name)


def _items(value: object, field: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _invalid(field, "a mapping with strings as keys", value)
    return list(value.items())


def _invalid(field: str, expected: str, value: object) -> InvalidData:
    return InvalidData(field, f"{field}: expected {expected}, not {value!r:.100}")
