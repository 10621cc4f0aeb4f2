"""Tests hold on a busy machine: none asserts that something takes less than some time."""

import ast
from collections.abc import Iterator

from tests.support.source_code import ROOT, parse_file

_CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time"}


def asserted_limits(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that assert an upper limit of a measured duration."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            operands = [node.test.left, *node.test.comparators]
            for operator, left, right in zip(node.test.ops, operands, operands[1:], strict=False):
                if (isinstance(operator, ast.Lt | ast.LtE) and reads_clock(left)) or (
                    isinstance(operator, ast.Gt | ast.GtE) and reads_clock(right)
                ):
                    yield node.lineno


def reads_clock(expression: ast.expr) -> bool:
    """Return whether an expression contains a call that returns the current time of a clock."""
    return any(isinstance(node, ast.Attribute) and node.attr in _CLOCKS for node in ast.walk(expression))


def test_no_test_limits_a_duration() -> None:
    """A benchmark measures speed; a test waits for a condition, or counts."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "tests").rglob("*.py")
        for line in asserted_limits(parse_file(path))
    ]

    assert found == []


def test_a_limit_is_found() -> None:
    """On either side of the comparison; a lower limit passes."""
    code = "assert time.monotonic() - t < 3\nassert 3 >= time.perf_counter() - t\nassert time.monotonic() - t > 3"

    assert list(asserted_limits(ast.parse(code))) == [1, 2]
