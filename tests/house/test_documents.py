"""The README documents every setting, error code and route."""

import inspect
import re

import pytest

from registry import errors
from registry.config.settings import SETTINGS
from registry.errors import RegistryError
from registry.store.redis.errors import UNAVAILABLE_REASONS
from tests.support.endpoints import all_endpoints
from tests.support.source_code import ROOT

PARAMETER = re.compile(r"\{\w+\}")

# Errors that no response contains: base classes, and errors that prevent the start.
ROOTS = {errors.RegistryError, errors.RequestRejected, errors.InvalidRequest, errors.StartupError}

CODES = {
    kind.code
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RegistryError) and kind not in ROOTS
}


@pytest.fixture(scope="module")
def readme() -> str:
    """The text of README.md."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def contains_word(word: str, text: str) -> bool:
    """Return whether the text contains the whole word, not only as part of a longer one."""
    return re.search(rf"(?<![\w/-]){re.escape(word)}(?![\w/-])", text) is not None


def test_each_setting_is_documented(readme: str) -> None:
    """By its environment name."""
    names = {setting.env for setting in SETTINGS.values()}

    assert {name for name in names if not contains_word(name, readme)} == set()


def test_each_error_code_is_documented(readme: str) -> None:
    """As the API returns it."""
    assert {code for code in CODES if not contains_word(code, readme)} == set()


def test_each_reason_is_documented(readme: str) -> None:
    """Each reason derived from a reply of Redis or set by the registry."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "registry").rglob("*.py"))
    reasons = {*UNAVAILABLE_REASONS, *re.findall(r'\breason="(\w+)"', text), "unreachable"}

    assert {reason for reason in reasons if not contains_word(reason, readme)} == set()


def test_each_route_is_documented(readme: str) -> None:
    """By its path; parameters may have any name, and the method may be in another column."""
    text = PARAMETER.sub("{}", readme)
    routes = [endpoint.split(" ", 1) for endpoint in all_endpoints()]

    assert {path for _, path in routes if not contains_word(PARAMETER.sub("{}", path), text)} == set()
    assert {method for method, _ in routes if not contains_word(method, text)} == set()


def test_each_setting_is_read() -> None:
    """A setting that no code reads has no effect."""
    sources = [path for path in (ROOT / "registry").rglob("*.py") if path.name not in {"settings.py", "value_types.py"}]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)

    # The key is only validated; a warning reports that it is not used yet.
    unread = {name for name in SETTINGS if not re.search(rf"\bsettings\.{name}\b", text)} - {"encryption_key"}
    assert unread == set()
