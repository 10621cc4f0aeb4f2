"""The README knows every setting, error code and route; who adds one, writes it down."""

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

# What never reaches a caller under its own code: the roots of branches, and what keeps the process from starting.
ROOTS = {errors.RegistryError, errors.RequestRejected, errors.InvalidRequest, errors.StartupError}

CODES = {
    kind.code
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RegistryError) and kind not in ROOTS
}


@pytest.fixture(scope="module")
def readme() -> str:
    """The text a stranger reads first."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def stands_in(word: str, text: str) -> bool:
    """Tell whether the word is there as a whole, not as part of a longer one."""
    return re.search(rf"(?<![\w/-]){re.escape(word)}(?![\w/-])", text) is not None


def test_each_setting_is_documented(readme: str) -> None:
    """By its environment name."""
    names = {setting.env for setting in SETTINGS.values()}

    assert {name for name in names if not stands_in(name, readme)} == set()


def test_each_error_code_is_documented(readme: str) -> None:
    """As it stands in the answer."""
    assert {code for code in CODES if not stands_in(code, readme)} == set()


def test_each_reason_is_documented(readme: str) -> None:
    """Why the store could not answer: what Redis says, and what is said by ourselves."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "registry").rglob("*.py"))
    reasons = {*UNAVAILABLE_REASONS, *re.findall(r'\breason="(\w+)"', text), "unreachable"}

    assert {reason for reason in reasons if not stands_in(reason, readme)} == set()


def test_each_route_is_documented(readme: str) -> None:
    """By its path, in which `{id}` may have any name; a table may have a column of its own for the method."""
    text = PARAMETER.sub("{}", readme)
    routes = [endpoint.split(" ", 1) for endpoint in all_endpoints()]

    assert {path for _, path in routes if not stands_in(PARAMETER.sub("{}", path), text)} == set()
    assert {method for method, _ in routes if not stands_in(method, text)} == set()


def test_each_setting_has_a_reader() -> None:
    """A setting that is read nowhere is a lie."""
    sources = [path for path in (ROOT / "registry").rglob("*.py") if path.name not in {"settings.py", "notation.py"}]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)

    # The key is read to be checked, and a warning says that nothing uses it yet.
    unread = {name for name in SETTINGS if not re.search(rf"\bsettings\.{name}\b", text)} - {"encryption_key"}
    assert unread == set()
