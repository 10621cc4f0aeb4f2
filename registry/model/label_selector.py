"""Label selectors with the grammar and the meaning of Kubernetes (apimachinery's `labels.Parse` and `Requirement`).

    env=production, tier in (web, api), region notin (eu), gpu, !legacy

Left out are `>` and `<`: Kubernetes reads them, but its documentation of label selectors does not have them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn, Self, get_args

from registry.errors import Detail, MalformedRequest
from registry.model.registration.schema import LabelKey, LabelValue
from registry.model.validation.errors import shown, written

MAX_LENGTH: Final = 4_096
"""Characters of a selector."""
MAX_REQUIREMENTS: Final = 100
"""Requirements of a selector, however they were given."""


class Requirement(NamedTuple):
    """One condition: the label `key` has one of `values`, or has none of them where it is not `wanted`.

    None stands for its absence. So a key that must be there has not the value None, and `!=` and `notin`, which do
    not list None, hold where the key is absent.
    """

    key: str
    wanted: bool
    values: frozenset[str | None]

    @property
    def text(self) -> str:
        """The shortest way to write it: `in` and `notin` only where there are several values."""
        if None in self.values:
            return f"!{self.key}" if self.wanted else self.key
        values = sorted(value for value in self.values if value is not None)
        if len(values) == 1:
            return f"{self.key}{'=' if self.wanted else '!='}{values[0]}"
        return f"{self.key} {'in' if self.wanted else 'notin'} ({','.join(values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements, all of which must hold; without any it matches everything.

    They are kept once each and sorted by their text, so selectors that differ in order, blanks, repetition or
    spelling (`==`, `in` with one value) are equal.
    """

    requirements: tuple[Requirement, ...] = ()

    def __post_init__(self) -> None:
        requirements = tuple(sorted(set(self.requirements), key=lambda each: each.text))
        object.__setattr__(self, "requirements", requirements)

    @classmethod
    def of(cls, labels: Mapping[str, str], field: str = "labels") -> Self:
        """Return the selector of what carries all these labels.

        Raises:
            MalformedRequest: a key or value can be no label's, or there are more than 100. Names each bad one.
        """
        requirements = _limited((Requirement(key, True, frozenset({value})) for key, value in labels.items()), field)
        details = [
            Detail(written((None, key), f"{field}."), f"found {shown(text)}; expected {kind.expected}")
            for key, value in labels.items()
            for text, kind in ((key, _KEY), (value, _VALUE))
            if not kind.fits(text)
        ]
        if details:
            raise MalformedRequest(f"{details[0].field}: {details[0].problem}", details)
        return cls(requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether labels meet every requirement."""
        for key, wanted, values in self.requirements:  # noqa: SIM110 - all() costs twice as much, on every candidate
            if (labels.get(key) in values) is not wanted:
                return False
        return True

    @property
    def equalities(self) -> tuple[tuple[str, str], ...]:
        """Key and value of each requirement that an index of labels can answer: `=`, or `in` with one value."""
        return tuple(
            (key, value)
            for key, wanted, values in self.requirements
            if wanted and len(values) == 1
            for value in values
            if value is not None
        )

    @property
    def text(self) -> str:
        """The one way to write this selector; reading it gives an equal one."""
        return ",".join(requirement.text for requirement in self.requirements)

    def __and__(self, other: Self) -> Self:
        """Return the selector of what both match."""
        return type(self)(self.requirements + other.requirements)


def read_selector(text: str, field: str = "label_selector") -> Selector:
    """Read a selector: `key=value`, `==`, `!=`, `key in (a,b)`, `notin`, `key`, `!key`, joined by commas.

    Blanks, tabs and line breaks may stand between any two words; no text matches everything; `key=` and an empty place
    in a list mean the empty value. `!=` and `notin` hold where the key is absent, as in Kubernetes.

    Raises:
        MalformedRequest: it cannot be read, a key or value can be no label's, or it is longer than 4,096 characters
            or 100 requirements. Names the place.
    """
    if len(text) > MAX_LENGTH:
        _refuse(field, f"has {len(text):,} characters, at most {MAX_LENGTH:,} are read")
    return Selector(_limited(_Reader(text, field).requirements(), field))


class _Kind(NamedTuple):
    """What a key or a value must be, as registrations say it."""

    fits: Callable[[str], object]
    expected: str


def _kind(form: Any) -> _Kind:
    _, rule = get_args(form)
    return _Kind(re.compile(rule.pattern).search, rule.description)


_KEY: Final = _kind(LabelKey)
_VALUE: Final = _kind(LabelValue)


class _Token(NamedTuple):
    text: str
    place: int

    @property
    def is_word(self) -> bool:
        return self.text not in _SIGNS


_OPERATORS: Final = frozenset({"=", "==", "!=", "in", "notin"})
_SIGNS: Final = frozenset({"", "=", "==", "!=", "!", "(", ")", ",", "<", ">"})
# Every text is tokens from its beginning to its end, the last one empty: what is no sign and no blank is in a word.
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^ \t\r\n=!(),<>]+|\Z)")


class _Reader:
    """Reads one selector from left to right, one token ahead."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        self._tokens = (_Token(found[1], found.start(1) + 1) for found in _TOKEN.finditer(text))
        self._token = next(self._tokens)

    def requirements(self) -> Iterator[Requirement]:
        if self._token.text:
            yield self._requirement()
            while self._token.text:
                self._take(",", "a comma")
                yield self._requirement()

    def _requirement(self) -> Requirement:
        if self._token.text == "!":
            self._scan()
            return Requirement(self._word(_KEY), True, frozenset({None}))
        key = self._word(_KEY)
        sign = self._token.text
        if sign in {"", ","}:
            return Requirement(key, False, frozenset({None}))
        if sign not in _OPERATORS:
            self._expected("= == != in notin, or a comma")
        self._scan()
        values = self._values() if sign in {"in", "notin"} else [self._value()]
        return Requirement(key, sign not in {"!=", "notin"}, frozenset(values))

    def _values(self) -> Iterator[str]:
        self._take("(", "(")
        yield self._value()
        while self._token.text != ")":
            self._take(",", "a comma or )")
            yield self._value()
        self._scan()

    def _value(self) -> str:
        """Read a value, which is empty where there is none before the next comma, the bracket or the end."""
        return "" if self._token.text in {"", ",", ")"} else self._word(_VALUE)

    def _word(self, kind: _Kind) -> str:
        token = self._token
        if not (token.is_word and kind.fits(token.text)):
            self._expected(kind.expected)
        self._scan()
        return token.text

    def _take(self, sign: str, expected: str) -> None:
        if self._token.text != sign:
            self._expected(expected)
        self._scan()

    def _scan(self) -> None:
        self._token = next(self._tokens)

    def _expected(self, expected: str) -> NoReturn:
        text, place = self._token
        found = shown(text) if text else "the end"
        _refuse(self._field, f"found {found} at character {place}; expected {expected}")


def _limited(requirements: Iterable[Requirement], field: str) -> tuple[Requirement, ...]:
    limited = tuple(islice(requirements, MAX_REQUIREMENTS + 1))
    if len(limited) > MAX_REQUIREMENTS:
        _refuse(field, f"has more than {MAX_REQUIREMENTS} requirements")
    return limited


def _refuse(field: str, problem: str) -> NoReturn:
    raise MalformedRequest(f"{field}: {problem}", [Detail(field, problem)])
