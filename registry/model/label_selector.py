"""Label selectors with the grammar and the meaning of Kubernetes (apimachinery's `labels.Parse` and `Requirement`).

    env=production, tier in (web, api), region notin (eu), gpu, !legacy

The operators `>` and `<` are not supported: Kubernetes parses them, but does not document them for label selectors.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn, Self, get_args

from registry.errors import Detail, MalformedRequest
from registry.model.registration.schema import LabelKey, LabelValue
from registry.model.validation.errors import describe_value, format_path

MAX_SELECTOR_CHARS: Final = 4_096
"""Maximum length of a selector."""
MAX_REQUIREMENTS: Final = 100
"""Maximum number of requirements, in any syntax."""


class Requirement(NamedTuple):
    """One condition of a selector: with `must_match` the label `key` has one of `values`, otherwise none of them.

    None stands for an absent label. So `key` is the requirement that the value is not None, and `!=` and `notin`, whose
    values do not include None, match if the label is absent.
    """

    key: str
    must_match: bool
    values: frozenset[str | None]

    @property
    def text(self) -> str:
        """The shortest text of this condition: `in` and `notin` are used only for several values."""
        if None in self.values:
            return f"!{self.key}" if self.must_match else self.key
        values = sorted(value for value in self.values if value is not None)
        if len(values) == 1:
            return f"{self.key}{'=' if self.must_match else '!='}{values[0]}"
        return f"{self.key} {'in' if self.must_match else 'notin'} ({','.join(values)})"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """The conditions of a label selector; all must match, and a selector without conditions matches everything.

    They are deduplicated and sorted by their text, so that selectors that differ in order, blanks, repetition or syntax
    (`==`, `in` with one value) are equal.
    """

    requirements: tuple[Requirement, ...] = ()

    def __post_init__(self) -> None:
        requirements = tuple(sorted(set(self.requirements), key=lambda each: each.text))
        object.__setattr__(self, "requirements", requirements)

    @classmethod
    def from_labels(cls, labels: Mapping[str, str], field: str = "labels") -> Self:
        """Return the selector for all labels. Raises MalformedRequest naming each invalid one, or above 100 labels."""
        equalities = (Requirement(key, True, frozenset({value})) for key, value in labels.items())
        requirements = _limit_requirements(equalities, field)
        details = [
            Detail(format_path((None, key), f"{field}."), f"found {describe_value(text)}; expected {kind.expected}")
            for key, value in labels.items()
            for text, kind in ((key, _KEY_RULE), (value, _VALUE_RULE))
            if not kind.matches(text)
        ]
        if details:
            raise MalformedRequest.of(details)
        return cls(requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an agent's labels match every condition."""
        for key, must_match, values in self.requirements:  # noqa: SIM110 - all() costs twice as much, on every candidate
            if (labels.get(key) in values) is not must_match:
                return False
        return True

    @property
    def equalities(self) -> tuple[tuple[str, str], ...]:
        """Pairs of key and value that the label index can look up, from the conditions `=` and `in` with one value."""
        return tuple(
            (key, value)
            for key, must_match, values in self.requirements
            if must_match and len(values) == 1
            for value in values
            if value is not None
        )

    @property
    def texts(self) -> Iterator[str]:
        """Yield the keys and values of all conditions."""
        for key, _, values in self.requirements:
            yield key
            yield from (value for value in values if value is not None)

    @property
    def text(self) -> str:
        """The canonical text of this selector; parsing the text returns an equal selector."""
        return ",".join(requirement.text for requirement in self.requirements)

    def __and__(self, other: Self) -> Self:
        """Return the selector for agents that match both selectors."""
        return type(self)(self.requirements + other.requirements)


def parse_selector(text: str, field: str = "label_selector") -> LabelSelector:
    """Parse a label selector: `key=value`, `==`, `!=`, `key in (a,b)`, `notin`, `key`, `!key`, joined by commas.

    Blanks, tabs and line breaks are allowed between tokens; an empty text matches everything; `key=` and an empty item
    of a list stand for the empty value. `!=` and `notin` match if the key is absent, as in Kubernetes. Raises
    MalformedRequest with the position of invalid syntax, or above 4,096 characters or 100 requirements.
    """
    if len(text) > MAX_SELECTOR_CHARS:
        _raise_invalid(field, f"has {len(text):,} characters, at most {MAX_SELECTOR_CHARS:,} are read")
    return LabelSelector(_limit_requirements(_Parser(text, field).requirements(), field))


class _TextRule(NamedTuple):
    """The rule for the text of a label key or value, which registrations also follow."""

    matches: Callable[[str], object]
    expected: str


def _text_rule(annotated_type: Any) -> _TextRule:
    _, rule = get_args(annotated_type)
    return _TextRule(re.compile(rule.pattern).search, rule.description)


_KEY_RULE: Final = _text_rule(LabelKey)
_VALUE_RULE: Final = _text_rule(LabelValue)


class _Token(NamedTuple):
    text: str
    position: int


_OPERATORS: Final = frozenset({"=", "==", "!=", "in", "notin"})
_PUNCTUATION: Final = frozenset({"", "=", "==", "!=", "!", "(", ")", ",", "<", ">"})
# Every text consists of tokens, the last one empty: all characters but operators and blanks belong to words.
_TOKEN_PATTERN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+|\Z)")


class _Parser:
    """Parses one selector from left to right, with one token of lookahead."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        self._tokens = (_Token(found[1], found.start(1) + 1) for found in _TOKEN_PATTERN.finditer(text))
        self._token = next(self._tokens)

    def requirements(self) -> Iterator[Requirement]:
        if self._token.text:
            yield self._requirement()
            while self._token.text:
                self._consume(",", "a comma")
                yield self._requirement()

    def _requirement(self) -> Requirement:
        if self._token.text == "!":
            self._advance()
            return Requirement(self._word(_KEY_RULE), True, frozenset({None}))
        key = self._word(_KEY_RULE)
        operator = self._token.text
        if operator in {"", ","}:
            return Requirement(key, False, frozenset({None}))
        if operator not in _OPERATORS:
            self._raise_expected("= == != in notin, or a comma")
        self._advance()
        values = self._values() if operator in {"in", "notin"} else [self._value()]
        return Requirement(key, operator not in {"!=", "notin"}, frozenset(values))

    def _values(self) -> Iterator[str]:
        self._consume("(", "(")
        yield self._value()
        while self._token.text != ")":
            self._consume(",", "a comma or )")
            yield self._value()
        self._advance()

    def _value(self) -> str:
        """Parse the value of a label, which is empty if a comma, a bracket or the end follows."""
        return "" if self._token.text in {"", ",", ")"} else self._word(_VALUE_RULE)

    def _word(self, rule: _TextRule) -> str:
        text = self._token.text
        if text in _PUNCTUATION or not rule.matches(text):
            self._raise_expected(rule.expected)
        self._advance()
        return text

    def _consume(self, text: str, expected: str) -> None:
        if self._token.text != text:
            self._raise_expected(expected)
        self._advance()

    def _advance(self) -> None:
        self._token = next(self._tokens)

    def _raise_expected(self, expected: str) -> NoReturn:
        text, position = self._token
        found = describe_value(text) if text else "the end"
        _raise_invalid(self._field, f"found {found} at character {position}; expected {expected}")


def _limit_requirements(requirements: Iterable[Requirement], field: str) -> tuple[Requirement, ...]:
    limited = tuple(islice(requirements, MAX_REQUIREMENTS + 1))
    if len(limited) > MAX_REQUIREMENTS:
        _raise_invalid(field, f"has more than {MAX_REQUIREMENTS} requirements")
    return limited


def _raise_invalid(field: str, problem: str) -> NoReturn:
    raise MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])
