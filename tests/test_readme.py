"""The README is true: its commands run as they stand, its answers have these fields, its tables are the code's."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from registry import errors
from registry.api.error_responses import http_status
from registry.api.request.queries import LIST_AGENTS_PARAMS, LIST_CAPABILITIES_PARAMS
from registry.config.settings import SETTINGS, Settings
from registry.errors import RegistryError
from tests.support.bash_shell import BashShell
from tests.support.endpoints import all_endpoints
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Which sections are typed along, and the blocks in them that are not, by their reason.
TYPED = ("Quick tour", "How to")
NOT_RUN = {"needs Docker", "needs a cluster", "installs packages and keeps the terminal", "keeps the terminal"}

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One fenced block: why it is not run (None: it is), what it is, and its text."""

    reason: str | None
    kind: str
    text: str


def section(title: str) -> str:
    """Return what stands under a heading of the second level."""
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text."""
    return [Block(found["reason"], found["kind"], found["text"]) for found in _BLOCK.finditer(text)]


def table(title: str, first: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading, under a heading of the second level."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\| ---.*\n((?:\|.*\n)+)", section(title), re.MULTILINE)
    assert found is not None, first
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in found[1].splitlines()]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Provide a server on a TCP port, as the README's replicas use it."""
    with RedisServer("--appendonly", "yes", tcp=True) as server:
        yield server


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
@pytest.mark.parametrize("title", TYPED)
def test_what_can_be_typed_along_works_and_answers_as_shown(title: str, own_redis: RedisServer, tmp_path: Path) -> None:
    """One terminal per section, beside a replica on port 8000; only ports and the way to the program are changed."""
    ports = {name: str(free_port()) for name in sorted(set(re.findall(r"--port (\d+)", section(title))))}
    with Replica(REGISTRY_DATA_DIR=str(tmp_path / "data"), LOG_LEVEL="warning") as replica:
        ports |= {"8000": replica.url.rpartition(":")[2], "6379": str(own_redis.port)}
        with BashShell(ROOT, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}) as shell:
            printed = ""
            for block in blocks(section(title)):
                if block.kind == "bash" and block.reason is None:
                    printed = shell.run(_here(block.text, ports))
                    _wait_for(block.text, ports)
                elif block.kind == "json":
                    _compare(json.loads(block.text), _last_json(printed))
                elif block.kind == "text":
                    _occurs(block.text, printed)


def _here(text: str, ports: Mapping[str, str]) -> str:
    """Put the test's own ports and program into a block, and keep what replicas say apart from the answers."""
    text = re.sub(r"\b(\d{4})\b", lambda found: ports.get(found[0], found[0]), text)
    text = re.sub(r" &$", " >&2 &", text, flags=re.MULTILINE)
    return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def _wait_for(text: str, ports: Mapping[str, str]) -> None:
    """Wait until the replicas a block has started are ready, as its reader does."""
    for port in re.findall(r"--port (\d+)", text):
        url = f"http://127.0.0.1:{ports[port]}/ready"
        wait_until(lambda url=url: _answers(url), description=f"the replica on port {port} is ready", timeout=15)  # type: ignore[misc]


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def _last_json(text: str) -> Any:
    """Return the last of the JSON values that stand one after the other in a text."""
    value, at = None, 0
    while at < len(text):
        value, at = json.JSONDecoder().raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
    return value


# What moves from run to run: there, of the same kind, and no more is promised.
_MOVES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\d{13}|[0-9a-f]{8}-[0-9a-f]+")


def _compare(shown: Any, answer: Any, path: str = "$") -> None:
    """Assert that an answer is the one shown: the same fields and values, but for what moves."""
    assert type(shown) is type(answer) or {type(shown), type(answer)} == {int, float}, path
    if isinstance(shown, dict):
        assert shown.keys() == answer.keys(), path
        for name, value in shown.items():
            _compare(value, answer[name], f"{path}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(answer), path
        for at, value in enumerate(shown):
            _compare(value, answer[at], f"{path}[{at}]")
    elif isinstance(shown, str):
        assert _MOVES.sub("…", shown) == _MOVES.sub("…", answer), path
    elif path.rpartition(".")[2] != "time_since_heartbeat":
        assert shown == answer, path


def _occurs(shown: str, printed: str) -> None:
    """Assert that every line shown was printed, whatever the numbers in it."""
    lines = {re.sub(r"\d+", "0", line) for line in printed.splitlines()}
    for line in shown.splitlines():
        assert re.sub(r"\d+", "0", line) in lines, (line, printed)


def test_what_is_not_run_says_why() -> None:
    """Every block of commands is run, or has one of the known reasons; none hides elsewhere."""
    reasons = {block.reason for title in TYPED for block in blocks(section(title)) if block.reason}
    assert reasons == NOT_RUN
    everywhere = [block.text for block in blocks(README) if block.kind == "bash"]
    typed = [block.text for title in TYPED for block in blocks(section(title)) if block.kind == "bash"]
    assert everywhere == typed


def test_the_settings_are_all_there_as_the_code_has_them() -> None:
    """Name, default and meaning, word for word, in the same order."""
    own = {"data_dir": "the user's", "instance_id": "host-process", "thresholds": "none", "propagate_headers": "none"}
    shown = Settings().masked()
    expected = []
    for name, setting in SETTINGS.items():
        default = "unset" if shown[name] == "unset" else f"`{shown[name]}`"
        expected.append([f"`{setting.env}`", own.get(name, default), setting.description])

    assert table("Settings", "name") == expected


def test_the_calls_are_all_there_and_no_others() -> None:
    """As `METHOD /path`."""
    calls = [cells[0].strip("`") for cells in table("API", "call")]

    assert sorted(calls) == sorted(all_endpoints())


def test_the_filters_are_all_there_and_no_others() -> None:
    """Every parameter the calls know."""
    for call, known in (("`GET /agents`", LIST_AGENTS_PARAMS), ("`GET /capabilities`", LIST_CAPABILITIES_PARAMS)):
        shown = [name for cells in table("API", call) for name in re.findall(r"`(\w+)`", cells[0])]
        assert sorted(shown) == sorted(known)


def test_the_errors_are_all_there_with_their_statuses() -> None:
    """Every code a caller can meet, with the status the API gives it."""
    rows = {cells[0].strip("`"): int(cells[1]) for cells in table("Errors", "code")}
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, RegistryError) and http_status(kind.__new__(kind)) != 500
    }
    expected = {kind.code: http_status(kind.__new__(kind)) for kind in kinds}
    expected |= {"not_found": 404, "method_not_allowed": 405, "internal_error": 500}

    assert rows == expected


def test_every_link_leads_somewhere() -> None:
    """A file that is there, or a heading of this page."""
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_make_target_that_is_named_is_there() -> None:
    """And each has its line in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
