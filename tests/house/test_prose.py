"""The project uses the words of docs/glossary.md and none of the retired ones."""

import re

import pytest

from tests.support.prose import GLOSSARY, Text, find_retired, retired_words, violations
from tests.support.source_code import ROOT

# Paths without retired words; the list grows until it is the whole project.
CLEAN = [
    "CONTRIBUTING.md",
    "README.md",
    "benchmarks",
    "client",
    "deploy",
    "docs",
    "examples",
    "registry/compat/mcpmesh/audit.py",
    "registry/compat/mcpmesh/fast_heartbeat.py",
    "registry/compat/mcpmesh/list_rows.py",
    "registry/compat/mcpmesh/llm_filters.py",
    "registry/compat/mcpmesh/llm_tools.py",
    "registry/compat/mcpmesh/masterminds_semver.py",
    "registry/compat/mcpmesh/policy.py",
    "registry/compat/mcpmesh/response_format.py",
    "registry/compat/mcpmesh/schema_match.py",
    "registry/model/resolution.py",
    "registry/service/resolution",
    "registry/service/versions.py",
    "tests/api",
    "tests/cache",
    "tests/cli",
    "tests/client",
    "tests/compat",
    "tests/concurrency",
    "tests/config",
    "tests/conftest.py",
    "tests/contract",
    "tests/deploy",
    "tests/examples",
    "tests/fleet",
    "tests/house",
    "tests/lua",
    "tests/model",
    "tests/sdk",
    "tests/service",
    "tests/store",
    "tests/support",
    "tests/telemetry",
    "tests/test_docs.py",
    "tests/test_readme.py",
    "tests/wire",
]


@pytest.mark.parametrize("place", CLEAN)
def test_no_retired_word_is_used(place: str) -> None:
    """Each line of the report has the place, the word and its replacements."""
    found = violations(ROOT / place)

    assert not found, "\n" + "\n".join(found)


def test_a_retired_word_is_found() -> None:
    """In camel case, snake case and prose; longer words that contain it pass."""
    path = ROOT / "README.md"

    assert find_retired(Text(path, 1, "names", "BellRinger")) == ["bell"]
    assert find_retired(Text(path, 1, "names", "_was_told")) == ["told"]
    assert find_retired(Text(path, 1, "names", "label")) == []
    assert find_retired(Text(path, 1, "prose", "Whoever asks, is\ntold")) == ["whoever", "told"]
    assert find_retired(Text(path, 1, "prose", "An agent on hold")) == []


def test_no_word_is_both_a_term_and_retired() -> None:
    """The glossary does not contradict itself."""
    terms = set(
        re.findall(r"^\| ([\w -]+?) \|", GLOSSARY.read_text(encoding="utf-8").partition("## Retired")[0], re.MULTILINE)
    )

    assert terms & {word for row in retired_words() for word in row.words} == set()
