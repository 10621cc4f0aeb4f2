"""Characters of names: nothing invisible, one normalization, no mixed scripts; correct spelling stays valid."""

import unicodedata

import idna
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from registry.model.validation.name_characters import (
    are_valid_names,
    find_mixed_letters,
    find_name_problem,
    hidden_characters,
)

PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
HINDI = "\u0915\u094d\u200d\u0937"
BENGALI = "\u09b0\u09cd\u200c\u09af"

VALID = [
    *(
        "pay",
        "Größe",
        "日本語",
        "погода",
        "καιρός",
        "שלום",
        "日本語API",
        "погода_2",
        "日本語погода",
        "pay😀",
        "⚙\ufe0f",
    ),
    *(PERSIAN, HINDI, BENGALI, "\u00b5s"),
]
INVALID = {
    "pay\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE, which is invisible",
    "\u2066pay": "U+2066 LEFT-TO-RIGHT ISOLATE, which is invisible",
    "p\u200bay": "U+200B ZERO WIDTH SPACE, which is invisible",
    "p\u200cay": "U+200C ZERO WIDTH NON-JOINER, which is invisible",
    "p\u200day": "U+200D ZERO WIDTH JOINER, which is invisible",
    "\u062e\u200c": "U+200C ZERO WIDTH NON-JOINER, which is invisible",
    "\u0627\u200c\u0645": "U+200C ZERO WIDTH NON-JOINER, which is invisible",
    "\u0915\u200d\u0937": "U+200D ZERO WIDTH JOINER, which is invisible",
    "pay\u00ad": "U+00AD SOFT HYPHEN, which is invisible",
    "pay\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A, which is invisible",
    "pay\u3164": "U+3164 HANGUL FILLER, which is invisible",
    "pay\ufe0f": "U+FE0F VARIATION SELECTOR-16, which is invisible",
    "pay\u0378": f"U+0378, which is undefined in Unicode {unicodedata.unidata_version}",
    "pay\uffff": f"U+FFFF, which is undefined in Unicode {unicodedata.unidata_version}",
    "pay\ue000": "U+E000, which is private-use",
    "pay\U0010fffd": "U+10FFFD, which is private-use",
    "cafe\u0301": r'normalization form C (NFC): "caf\u00e9", not "cafe\u0301"',
    "\u212b": r'normalization form C (NFC): "\u00c5", not "\u212b"',
}
MIXED = {
    "p\u0430y": "Latin letters with U+0430 CYRILLIC SMALL LETTER A",
    "\u0440a\u0443": "Cyrillic letters with U+0061 LATIN SMALL LETTER A",
    "\u03bcs": "Greek letters with U+0073 LATIN SMALL LETTER S",
    "tag\u03bf": "Latin letters with U+03BF GREEK SMALL LETTER OMICRON",
    "日本語-a-\u0430": "Latin letters with U+0430 CYRILLIC SMALL LETTER A",
}


@pytest.mark.parametrize("name", VALID)
def test_correct_spelling_in_any_script_is_valid(name: str) -> None:
    """This includes joiners where a script requires them, and an emoji."""
    assert find_name_problem(name, one_script=True) is None
    assert are_valid_names(["a", name, "b"], one_script=True)
    assert not hidden_characters(name)


@pytest.mark.parametrize(("name", "problem"), INVALID.items())
def test_a_character_that_a_reader_cannot_see_is_named_by_its_code_point(name: str, problem: str) -> None:
    """The name is also invalid among valid ones."""
    assert problem in str(find_name_problem(name, one_script=False))
    assert not are_valid_names([PERSIAN, name, "b"], one_script=False)


@pytest.mark.parametrize(("name", "mixed"), MIXED.items())
def test_letters_of_two_scripts_in_one_name_are_mixed(name: str, mixed: str) -> None:
    """Where a rule allows both scripts, the name is valid."""
    assert find_mixed_letters(name) == mixed
    assert find_name_problem(name, one_script=True) == f"must not mix {mixed}, which can look alike"
    assert not are_valid_names(["b", name, "b"], one_script=True)
    assert find_name_problem(name, one_script=False) is None
    assert are_valid_names([name], one_script=False)


def test_names_of_different_scripts_are_valid_together() -> None:
    """Each name is in one script."""
    assert are_valid_names(["pay", "погода", "καιρός"], one_script=True)


ANY_NAME = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]),
        st.sampled_from("aя\u03b1مکख्ন\u09cd\u0301\u0327\u064e\u200b\u200c\u200d\u202e\ufe0f\u3164⚙"),
    ),
    max_size=12,
)


@example(["\xa0", "a\u3000b"], False)
@given(st.lists(ANY_NAME, max_size=4), st.booleans())
def test_names_are_valid_together_if_each_is_valid(names: list[str], one_script: bool) -> None:  # noqa: FBT001 - drawn
    """The fast search of all names at once agrees with the search of each."""
    each = [find_name_problem(name, one_script=one_script) for name in names]

    assert are_valid_names(names, one_script=one_script) == (each == [None] * len(names))


@given(ANY_NAME)
def test_a_valid_name_shows_all_its_characters(name: str) -> None:
    """It contains no format, undefined or private-use character but joiners, and is normalized."""
    assume(find_name_problem(name, one_script=False) is None)

    assert unicodedata.normalize("NFC", name) == name
    unseen = {each for each in name if unicodedata.category(each) in ("Cf", "Cn", "Co")}
    assert unseen <= {"\u200c", "\u200d"}
    assert not hidden_characters(name)


@given(
    st.sampled_from(["\u0645\u06a9\u0627\u064e\u0650", "\u0916\u094d\u09a8\u09cd"]).flatmap(
        lambda letters: st.text(st.sampled_from(letters + "a\u200c\u200d"), max_size=8)
    )
)
def test_a_joiner_is_valid_where_idna_allows_it(name: str) -> None:
    """The rules are those of RFC 5892, appendix A.1 and A.2."""
    joiners = [at for at, each in enumerate(name) if each in "\u200c\u200d"]
    assert hidden_characters(name) == {at for at in joiners if not idna.core.valid_contextj(name, at)}


def test_joiners_of_the_scripts_in_modern_use_follow_idna() -> None:
    """Each letter of the basic plane, before and after a joiner."""
    for code in range(0x600, 0x1900):
        letter = chr(code)
        if unicodedata.category(letter) not in ("Lo", "Lm", "Mn", "Mc"):
            continue
        for name, at in ((f"{letter}\u200cب", 1), (f"ب\u200c{letter}", 1), (f"{letter}\u200d", 1)):
            assert (at not in hidden_characters(name)) == idna.core.valid_contextj(name, at), ascii(name)
