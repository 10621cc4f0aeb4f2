"""The README tells which faults are survived, and a test stands behind each row."""

import ast
import re

from tests.support.source_code import ROOT, parse_file

_ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def marked() -> set[tuple[int, str]]:
    """Return the number and the words of every fault that a test is marked with."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(parse_file(path)):
            match node:
                case ast.Call(ast.Attribute(ast.Attribute(_, "mark"), "fault"), [number, words]):
                    found.add((ast.literal_eval(number), ast.literal_eval(words)))
    return found


def shown() -> list[tuple[int, str]]:
    """Return the rows of the README's table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Tested faults\n")[2]
    return [(int(number), words) for number, words, _ in _ROW.findall(text.partition("\n## ")[0])]


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    """By number and words."""
    assert set(shown()) == marked()


def test_the_rows_are_in_order() -> None:
    """Each number once."""
    numbers = [number for number, _ in shown()]

    assert numbers == sorted(set(numbers))
