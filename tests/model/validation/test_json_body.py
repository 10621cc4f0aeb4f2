"""JSON bodies: accepted values, rejected values, and the position that an error names."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import InvalidRequest, MalformedRequest, UnprocessableRequest
from registry.model.validation.json_body import MAX_DEPTH, decode_json_body

ACCEPTED = {
    "object": (b'{"a": [1, -2.5, true, null, "x"]}', {"a": [1, -2.5, True, None, "x"]}),
    "scalar": (b' "text" ', "text"),
    "duplicate key": (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
    "smallest integer": (b"-9223372036854775808", -(2**63)),
    "largest integer": (b"18446744073709551615", 2**64 - 1),
    "long digits in a string": (b'"99999999999999999999999"', "99999999999999999999999"),
    "large double": (b"1e308", 1e308),
    "tiny double": (b"1e-400", 0.0),
    "long fraction": (b"0.1234567890123456789012345", 0.1234567890123456789012345),
    "surrogate pair": (rb'"\ud83d\ude00"', "😀"),
    "escaped null": (rb'"\u0000"', "\0"),
    "strange keys": ('{"__proto__": {}, "": 0, "😀": 1}'.encode(), {"__proto__": {}, "": 0, "😀": 1}),
    "brackets in a string": (b'"' + b"[" * 100_000 + b'"', "[" * 100_000),
    "many brackets, none deep": (b"[" + b"[]," * 1000 + b"{}]", [[] for _ in range(1000)] + [{}]),
}

MALFORMED = {
    "empty": (b"", "empty"),
    "blank": (b" \r\n", "empty"),
    "not JSON": (b"agent: 1", "line 1 column 1"),
    "cut off": (b'{"a": [1, 2', "line 1 column 12"),
    "trailing garbage": (b'{"a": 1}\n}', "line 2 column 1"),
    "trailing comma": (b"[1,]", "line 1 column 3"),
    "single quotes": (b"{'a': 1}", "line 1 column 2"),
    "leading zero": (b"[01]", "line 1 column 2"),
    "NaN": (b'{"a": NaN}', "line 1 column 7"),
    "Infinity": (b"[Infinity]", "line 1 column 2"),
    "-Infinity": (b"[-Infinity]", "line 1 column 3"),
    "NaN after a number out of range": (b"[1e400, NaN]", "not JSON"),
    "line break in a string": (b'"a\nb"', "line 1 column"),
    "invalid UTF-8": (b'{"a": "\xff"}', "byte 0xff at offset 7"),
    "invalid UTF-8 in a key": (b'{"\xc3(": 1}', "byte 0xc3 at offset 2"),
    "overlong UTF-8": (b'"\xc0\x80"', "byte 0xc0 at offset 1"),
    "UTF-8 surrogate": (b'"\xed\xa0\x80"', "byte 0xed at offset 1"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "offset 0"),
    "byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "lone high surrogate": (rb'{"a": "\ud800"}', "surrogate"),
    "lone low surrogate": (rb'{"a": "\udc00 and more text"}', "surrogate"),
    "high surrogate before text": (rb'{"a": "\ud800abcdef"}', "surrogate"),
    "lone surrogate in a key": (rb'{"\ud800": 1}', "surrogate"),
}

NESTED = b'{"a":' * MAX_DEPTH + b"[]" + b"}" * MAX_DEPTH

UNPROCESSABLE = {
    "30 digits": (b'{"a": {"b": [0, 123456789012345678901234567890]}}', ["a.b[1]"]),
    "one too large": (b"18446744073709551616", ["body"]),
    "one too small": (b"[-9223372036854775809]", ["[0]"]),
    "a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", ["a"]),
    "4,299 digits": (b'{"a": ' + b"9" * 4_299 + b"}", ["a"]),
    "1e400": (b'{"labels": {"bad key!": 1e400}}', ['labels["bad key!"]']),
    "-1e400": (b"[-1e400]", ["[0]"]),
    "every bad number": (b'{"b": 1e400, "a": [1e999, 1, 99999999999999999999]}', ["b", "a[0]", "a[2]"]),
    "bad number under a duplicate key": (b'{"a": 1e400, "a": 1}', ["body"]),
    "bad number before a surrogate key": (rb'{"a": 1e400, "\ud800": 1e400}', ["a", '["\\\\ud800"]']),
    "long key": (b'{"' + b"k" * 100_000 + b'": 1e400}', ['["' + "k" * 60 + '"…]']),
    "65 deep": (NESTED, [".".join("a" * 64)]),
    "300 deep": (b"[" * 300 + b"]" * 300, ["[0]" * 64]),
    "65 deep under long keys": (NESTED.replace(b"a", b"abcde"), ["abcde." * 20 + "…" + ".abcde" * 10]),
    "100,000 deep": (b"[" * 100_000, ["body"]),
    "100,000 deep in objects": (b'{"a":' * 100_000, ["body"]),
    "100,000 deep after a bad number": (b"[1e400," + b"[" * 100_000, ["body"]),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_document_is_decoded_as_it_was_sent(body: bytes, value: object) -> None:
    """Values and types are the same, also at the limits of the accepted range."""
    document = decode_json_body(body)

    assert document == value
    assert type(document) is type(value)


@pytest.mark.parametrize(("body", "where"), MALFORMED.values(), ids=MALFORMED)
def test_invalid_json_is_malformed_and_the_error_names_the_position(body: bytes, where: str) -> None:
    """The position is line and column, or the offset of a byte that is not UTF-8."""
    with pytest.raises(MalformedRequest, match="body") as error:
        decode_json_body(body)

    assert where in str(error.value)


@pytest.mark.parametrize(("body", "fields"), UNPROCESSABLE.values(), ids=UNPROCESSABLE)
def test_a_value_that_cannot_be_stored_exactly_is_rejected_by_its_path(body: bytes, fields: list[str]) -> None:
    """Numbers are never rounded silently; deep nesting does not crash the process."""
    with pytest.raises(UnprocessableRequest) as error:
        decode_json_body(body)

    assert [detail.field for detail in error.value.details] == fields


def test_nesting_up_to_the_limit_is_decoded() -> None:
    """The outermost list counts as one."""
    document = decode_json_body(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)

    assert str(document) == "[" * MAX_DEPTH + "]" * MAX_DEPTH


def test_an_error_lists_a_hundred_problems_and_counts_the_rest() -> None:
    """The response stays short for any body."""
    with pytest.raises(UnprocessableRequest) as error:
        decode_json_body(b"[" + b",".join([b"1e400"] * 150) + b"]")

    assert len(error.value.details) == 101
    assert error.value.details[-1].problem == "… and 50 more"


def test_an_error_does_not_count_without_limit() -> None:
    """Counting a hundred thousand problems costs time and helps only an attacker."""
    with pytest.raises(UnprocessableRequest) as error:
        decode_json_body(b"[" + b",".join([b"1e400"] * 100_000) + b"]")

    assert error.value.details[-1].problem == "… and at least 900 more"


@given(st.binary() | st.text().map(str.encode) | st.from_regex(r'[\[{]{1,99}["0-9eE+\-\\u,:\]} a-f]*').map(str.encode))
@example(b"[" * 2_000 + b"1e400" + b"]" * 2_000)
@example(b'{"a":' * 255 + b"99999999999999999999" + b"}" * 255)
def test_every_body_is_decoded_or_rejected(body: bytes) -> None:
    """The error can always be encoded; the decoded value equals that of the standard library."""
    try:
        document = decode_json_body(body)
    except InvalidRequest as error:
        json.dumps([str(error), *map(str, error.details)]).encode()
    else:
        assert document == json.loads(body)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_every_json_value_is_decoded_unchanged(value: object) -> None:
    """No valid JSON is rejected or modified."""
    body = json.dumps(value).encode()

    document = decode_json_body(body)

    assert document == value
