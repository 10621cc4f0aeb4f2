"""Each fault in the table of the README has a test."""

import ast
import re

from tests.support.source_code import ROOT, parse_file

_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def marked_faults() -> set[tuple[int, str]]:
    """Return the number and the words of each `fault` mark in the tests."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(parse_file(path)):
            match node:
                case ast.Call(ast.Attribute(ast.Attribute(_, "mark"), "fault"), [number, words]):
                    found.add((ast.literal_eval(number), ast.literal_eval(words)))
    return found


def listed_faults() -> list[tuple[int, str]]:
    """Return the number and the words of each row in the table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Tested faults\n")[2]
    return [(int(number), words) for number, words, _ in _ROW.findall(text.partition("\n## ")[0])]


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    """Number and words are equal."""
    assert set(listed_faults()) == marked_faults()


def test_the_rows_are_in_order() -> None:
    """Each number occurs once."""
    numbers = [number for number, _ in listed_faults()]

    assert numbers == sorted(set(numbers))
