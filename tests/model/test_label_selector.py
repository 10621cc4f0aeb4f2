"""Label selectors: the grammar and meaning of Kubernetes, one canonical text, errors that name the position."""

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import MalformedRequest
from registry.model.label_selector import MAX_REQUIREMENTS, MAX_SELECTOR_CHARS, LabelSelector, parse_selector

# By selector: the canonical text of the requirements that Kubernetes' own parser reads (selector_test.go of
# apimachinery).
PARSED = {
    "": "",
    " \t\r\n": "",
    "x=a,y=b,z=c": "x=a,y=b,z=c",
    "z=c , x = a,y\t==\nb": "x=a,y=b,z=c",
    "x!=a,y=b": "x!=a,y=b",
    "x=": "x=",
    "x= ,z= ": "x=,z=",
    "x==": "x=",
    "x!=": "x!=",
    "!x": "!x",
    "! x": "!x",
    "\rx": "x",
    "a ": "a",
    "notin=in": "notin=in",
    "in": "in",
    "!notin": "!notin",
    "in in (in)": "in=in",
    "foo  in\t (abc)": "foo=abc",
    "x notin\n (abc)": "x!=abc",
    "x  notin\t\t\t(def,abc)": "x notin (abc,def)",
    "x in(a,b)": "x in (a,b)",
    "x in (b,a,b)": "x in (a,b)",
    "x in (abc,)": "x in (,abc)",
    "x in (,abc)": "x in (,abc)",
    "x in (a,,b)": "x in (,a,b)",
    "x in ()": "x=",
    "x in (,)": "x=",
    "x notin ( )": "x!=",
    "x notin (, a)": "x notin (,a)",
    "x notin (abc,def),bar,z in (),w": "bar,w,x notin (abc,def),z=",
    "x,y in (a)": "x,y=a",
    "a in (x,y,notin, z,in)": "a in (in,notin,x,y,z)",
    "x=a,x=a,x in (a)": "x=a",
    "x=a,x=b,x": "x,x=a,x=b",
    "1234 in (bar)": "1234=bar",
    "this-is-a-dns.domain.com/key-with-dash": "this-is-a-dns.domain.com/key-with-dash",
    "0.1.2.domain/99 notin (10.10.100.1, tick.tack.clock)": "0.1.2.domain/99 notin (10.10.100.1,tick.tack.clock)",
    f"{'d' * 253}/{'k' * 63}={'v' * 63}": f"{'d' * 253}/{'k' * 63}={'v' * 63}",
}


@pytest.mark.parametrize(("text", "canonical"), PARSED.items(), ids=[text[:30] for text in PARSED])
def test_a_selector_is_parsed_as_in_kubernetes(text: str, canonical: str) -> None:
    """Its text is the shortest spelling, sorted."""
    assert parse_selector(text).text == canonical


KEY, VALUE = "a Kubernetes label key", "a Kubernetes label value"

REJECTED = {
    "x=a||y=b": ('"a||y" at character 3', VALUE),
    "x==a==b": ('"==" at character 5', "a comma"),
    "x===a": ('"=" at character 4', VALUE),
    "!x=a": ('"=" at character 3', "a comma"),
    "!!x": ('"!" at character 2', KEY),
    "x! =a": ('"!" at character 2', "= == != in notin, or a comma"),
    "x<1": ('"<" at character 2', "= == != in notin, or a comma"),
    "x>1": ('">" at character 2', "= == != in notin, or a comma"),
    ",x,y": ('"," at character 1', KEY),
    "x,,y": ('"," at character 3', KEY),
    "x,": ("the end at character 3", KEY),
    "=a": ('"=" at character 1', KEY),
    "!": ("the end at character 2", KEY),
    "x nott in (y)": ('"nott" at character 3', "= == != in notin, or a comma"),
    "x y": ('"y" at character 3', "= == != in notin, or a comma"),
    "x=a b": ('"b" at character 5', "a comma"),
    "x=)": ('")" at character 3', "a comma"),
    "x=(a)": ('"(" at character 3', VALUE),
    "x in": ("the end at character 5", "("),
    "x in a": ('"a" at character 6', "("),
    "a notin(": ("the end at character 9", "a comma or )"),
    "a in (b": ("the end at character 8", "a comma or )"),
    "a in (b c)": ('"c" at character 9', "a comma or )"),
    "a in (b=c)": ('"=" at character 8', "a comma or )"),
    "a in ((b))": ('"(" at character 7', VALUE),
    "a in (b))": ('")" at character 9', "a comma"),
    "a in (b)c notin ()": ('"c" at character 9', "a comma"),
    "a (": ('"(" at character 3', "= == != in notin, or a comma"),
    "(": ('"(" at character 1', KEY),
    "a/b/c": ('"a/b/c" at character 1', KEY),
    "/a": ('"/a" at character 1', KEY),
    "a/": ('"a/" at character 1', KEY),
    "Example.com/a": ('"Example.com/a" at character 1', KEY),
    "ex_ample.com/a": ('"ex_ample.com/a" at character 1', KEY),
    "-a": ('"-a" at character 1', KEY),
    "a-": ('"a-" at character 1', KEY),
    "x=-1": ('"-1" at character 3', VALUE),
    "x=a/b": ('"a/b" at character 3', VALUE),
    "x=\u00e4": ('"\u00e4" at character 3', VALUE),
    "x\u00a0=a": ('"x\u00a0" at character 1', KEY),
    "x=a\0": (r'"a\u0000" at character 3', VALUE),
    "x=\ud800": (r'"\\ud800" at character 3', VALUE),
    "x=" + "a" * 64: ("(64 characters) at character 3", VALUE),
    "k" * 64: ("(64 characters) at character 1", KEY),
    "d" * 254 + "/k": ("(256 characters) at character 1", KEY),
}


@pytest.mark.parametrize(("text", "places"), REJECTED.items(), ids=[repr(text[:20]) for text in REJECTED])
def test_a_selector_that_kubernetes_rejects_is_rejected(text: str, places: tuple[str, str]) -> None:
    """The error names the text found, its position and the text expected there."""
    found, expected = places

    with pytest.raises(MalformedRequest) as error:
        parse_selector(text, "query.label_selector")

    (detail,) = error.value.details
    assert str(error.value) == f"query.label_selector: {detail.problem}"
    assert detail.field == "query.label_selector"
    assert detail.problem.startswith("found ")
    assert f"{found}; expected {expected}" in detail.problem
    detail.problem.encode()


def test_a_selector_within_the_limits_is_parsed() -> None:
    """Above the limits it is rejected."""
    most = ",".join(f"k{place}" for place in range(MAX_REQUIREMENTS))
    longest = "k in (" + "v," * ((MAX_SELECTOR_CHARS - 7) // 2) + ")"
    longest += " " * (MAX_SELECTOR_CHARS - len(longest))

    assert len(parse_selector(most).requirements) == MAX_REQUIREMENTS
    assert parse_selector(longest).text == "k in (,v)"
    with pytest.raises(MalformedRequest, match="label_selector: has more than 100 requirements"):
        parse_selector(most + ",k")
    with pytest.raises(MalformedRequest, match="label_selector: has 4,097 characters, at most 4,096 are read"):
        parse_selector(longest + " ")
    with pytest.raises(MalformedRequest, match=r"query\.labels: has more than 100 requirements"):
        LabelSelector.from_labels({f"k{place}": "" for place in range(MAX_REQUIREMENTS + 1)}, "query.labels")


MATCHED: dict[str, tuple[list[Mapping[str, str]], list[Mapping[str, str]]]] = {
    "": ([{}, {"x": "y"}], []),
    "x=y": ([{"x": "y"}, {"x": "y", "z": "w"}], [{}, {"x": "z"}, {"y": "x"}]),
    "x=": ([{"x": ""}], [{}, {"x": "y"}]),
    "x!=y": ([{"x": "z"}, {"x": ""}, {}], [{"x": "y"}]),
    "x!=": ([{"x": "y"}, {}], [{"x": ""}]),
    "x in (a,b)": ([{"x": "a"}, {"x": "b"}], [{"x": "c"}, {}]),
    "x in (a,)": ([{"x": "a"}, {"x": ""}], [{"x": "c"}, {}]),
    "x notin (a,b)": ([{"x": "c"}, {"x": ""}, {}], [{"x": "a"}, {"x": "b"}]),
    "x": ([{"x": "y"}, {"x": ""}], [{}, {"y": "x"}]),
    "!x": ([{}, {"y": "x"}], [{"x": "y"}, {"x": ""}]),
    "x=y,z=w": ([{"x": "y", "z": "w"}], [{"x": "y"}, {"x": "w", "z": "w"}]),
    "x!=y,z!=w": ([{"x": "z", "z": "a"}, {}], [{"x": "z", "z": "w"}]),
    "x,x!=y": ([{"x": "z"}], [{"x": "y"}, {}]),
    "x,!x": ([], [{}, {"x": "y"}]),
    "x=a,x=b": ([], [{"x": "a"}, {"x": "b"}, {}]),
}


@pytest.mark.parametrize("text", MATCHED)
def test_a_selector_matches_as_in_kubernetes(text: str) -> None:
    """A label that must not have a value may also be absent."""
    matched, not_matched = MATCHED[text]
    selector = parse_selector(text)

    assert [labels for labels in [*matched, *not_matched] if selector.matches(labels)] == matched


def test_equalities_are_the_conditions_that_an_index_can_check() -> None:
    """They are the labels that must have one certain value; `matches` checks the other conditions."""
    selector = parse_selector("z in (w), x=y, empty=, a!=b, b notin (c), c in (d,e), d, !e")

    assert selector.equalities == (("empty", ""), ("x", "y"), ("z", "w"))


def test_a_selector_of_labels_equals_the_one_written_with_equal_signs() -> None:
    """The order of the labels does not matter."""
    selector = LabelSelector.from_labels({"env": "production", "app/tier": ""})

    assert selector == parse_selector("app/tier=,env=production")
    assert selector.equalities == (("app/tier", ""), ("env", "production"))
    assert LabelSelector.from_labels({}) == LabelSelector() == parse_selector("")


def test_a_selector_of_labels_names_each_invalid_label() -> None:
    """The error names it by its key."""
    with pytest.raises(MalformedRequest, match=r"^query\.labels\.env: ") as error:
        LabelSelector.from_labels({"env": "a b", "ok": "yes", "bad key": ""}, "query.labels")

    assert [detail.field for detail in error.value.details] == ["query.labels.env", 'query.labels["bad key"]']
    assert error.value.details[0].problem.startswith(f'found "a b"; expected {VALUE}')
    assert error.value.details[1].problem.startswith(f'found "bad key"; expected {KEY}')


def test_two_selectors_are_combined() -> None:
    """A condition of both appears once."""
    both = LabelSelector.from_labels({"env": "production"}) & parse_selector("gpu,env=production")

    assert both == parse_selector("env=production,gpu")


word = st.from_regex(r"[a-c]([a-c._-]?[a-c])?", fullmatch=True) | st.sampled_from(["in", "notin"])
key = word | st.builds("{}/{}".format, st.sampled_from(["a", "b.c"]), word)
value = word | st.just("")
blank = st.sampled_from(["", "", " ", "\t", "\n "])
sign = st.sampled_from(["=", "==", "!=", "in", "notin", "", "!"])
condition = st.tuples(key, sign, st.lists(value, min_size=1, max_size=3))
Condition = tuple[str, str, list[str]]


def spelled(condition: Condition, blanks: st.DataObject) -> str:
    """Return a condition in one of its spellings, with blanks in random places."""
    key, sign, values = condition

    def gap() -> str:
        return blanks.draw(blank)

    match sign:
        case "":
            return f"{gap()}{key}{gap()}"
        case "!":
            return f"{gap()}!{gap()}{key}{gap()}"
        case "in" | "notin":
            return f"{gap()}{key} {sign}{gap()}({','.join(gap() + each + gap() for each in values)}){gap()}"
        case _:
            return f"{gap()}{key}{gap()}{sign}{gap()}{values[0]}{gap()}"


def holds(condition: Condition, labels: Mapping[str, str]) -> bool:
    """Return whether labels satisfy a condition, by a rule for each sign."""
    key, sign, values = condition
    return {
        "": key in labels,
        "!": key not in labels,
        "=": key in labels and labels[key] == values[0],
        "==": key in labels and labels[key] == values[0],
        "!=": key not in labels or labels[key] != values[0],
        "in": key in labels and labels[key] in values,
        "notin": key not in labels or labels[key] not in values,
    }[sign]


@given(st.lists(condition, max_size=4), st.dictionaries(key, value, max_size=6), st.data())
def test_a_selector_matches_when_each_of_its_conditions_holds(
    conditions: list[Condition], labels: dict[str, str], data: st.DataObject
) -> None:
    """This holds for every spelling, and again when the canonical text is parsed."""
    selector = parse_selector(",".join(spelled(each, data) for each in conditions))
    again = parse_selector(selector.text)

    assert selector.matches(labels) == all(holds(each, labels) for each in conditions)
    assert again == selector
    assert again.text == selector.text
    assert all(labels.get(key) == value for key, value in selector.equalities) or not selector.matches(labels)


@given(st.lists(condition, max_size=4), st.randoms(), st.data())
def test_order_blanks_and_repetition_do_not_change_a_selector(
    conditions: list[Condition], random: Random, data: st.DataObject
) -> None:
    """A second equal sign or a set of one value does not change it either."""
    same = [*conditions, *conditions[:1]]
    random.shuffle(same)
    synonyms = {"=": "==", "==": "in", "!=": "notin"}
    same = [(key, synonyms.get(sign, sign), values[: 1 if sign in synonyms else None]) for key, sign, values in same]

    first = parse_selector(",".join(spelled(each, data) for each in conditions))
    second = parse_selector(",".join(spelled(each, data) for each in same))

    assert first.text == second.text
    assert {first: "found"}[second] == "found"


@given(st.text(st.sampled_from("ab/-.=!()<>, \t\0\ud800in"), max_size=40) | st.text())
def test_every_text_is_parsed_or_rejected(text: str) -> None:
    """The text of a parsed selector can be parsed again."""
    try:
        selector = parse_selector(text)
    except MalformedRequest as error:
        str(error).encode()
    else:
        assert parse_selector(selector.text) == selector
