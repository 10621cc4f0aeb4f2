"""Checks of README.md: its commands run and print the responses shown, and its tables match the code."""

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
from registry.api.request.query_parsers import LIST_AGENTS_PARAMS, LIST_CAPABILITIES_PARAMS
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
# Sections whose commands are executed, and the reasons of the blocks in them that are not.
EXECUTED_SECTIONS = ("Quick tour", "How to")
REASONS_NOT_TO_EXECUTE = {
    "needs Docker",
    "needs a cluster",
    "installs packages and keeps the terminal",
    "keeps the terminal",
}

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One fenced block: the reason why it is not executed (None: it is), its language and its text."""

    reason: str | None
    kind: str
    text: str


_STARTED_PORT = re.compile(r"(?:--port |REGISTRY_ADMIN_PORT=)(\d+)")


def section(title: str) -> str:
    """Return the text under a heading of the second level."""
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
    """Provide a server on a TCP port, as the replicas of the README use it."""
    with RedisServer("--appendonly", "yes", tcp=True) as server:
        yield server


# It starts a dozen replicas and agents, one after the other: some seconds on a quiet machine, a minute on a busy one.
@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
@pytest.mark.parametrize("title", EXECUTED_SECTIONS)
def test_commands_print_the_responses_shown(title: str, own_redis: RedisServer, tmp_path: Path) -> None:
    """Each section is one shell beside a replica on port 8000; only ports and the path of the program differ."""
    ports = {name: str(free_port()) for name in sorted(set(_STARTED_PORT.findall(section(title))))}
    with Replica(REGISTRY_DATA_DIR=str(tmp_path / "data"), LOG_LEVEL="warning") as replica:
        ports |= {"8000": replica.url.rpartition(":")[2], "6379": str(own_redis.port)}
        with BashShell(ROOT, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}) as shell:
            printed = ""
            for block in blocks(section(title)):
                if block.kind == "bash" and block.reason is None:
                    printed = shell.run(_localize(block.text, ports))
                    _wait_for_replicas(block.text, ports)
                elif block.kind == "json":
                    _compare(json.loads(block.text), _last_json(printed))
                elif block.kind == "text":
                    _assert_printed(block.text, printed)


def _localize(text: str, ports: Mapping[str, str]) -> str:
    """Insert the ports and the program of the test into a block, and move the output of replicas to standard error."""
    text = re.sub(r"\b(\d{4})\b", lambda found: ports.get(found[0], found[0]), text)
    text = re.sub(r" &$", " >&2 &", text, flags=re.MULTILINE)
    return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def _wait_for_replicas(text: str, ports: Mapping[str, str]) -> None:
    """Wait until the replicas that a block starts are ready."""
    for port in re.findall(r"--port (\d+)", text):
        url = f"http://127.0.0.1:{ports[port]}/ready"
        wait_until(lambda url=url: _is_ready(url), description=f"the replica on port {port} is ready")  # type: ignore[misc]


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def _last_json(text: str) -> Any:
    """Return the last of several JSON values in a text."""
    value, at = None, 0
    while at < len(text):
        value, at = json.JSONDecoder().raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
    return value


# Values that differ in each run: times, versions and ids. Only their presence is compared.
_VARYING = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\d{13}|[0-9a-f]{8}-[0-9a-f]+")


def _compare(shown: Any, response: Any, path: str = "$") -> None:
    """Assert that a response is the one shown, except for values that differ in each run."""
    assert type(shown) is type(response) or {type(shown), type(response)} == {int, float}, path
    if isinstance(shown, dict):
        assert shown.keys() == response.keys(), path
        for name, value in shown.items():
            _compare(value, response[name], f"{path}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(response), path
        for at, value in enumerate(shown):
            _compare(value, response[at], f"{path}[{at}]")
    elif isinstance(shown, str):
        assert _VARYING.sub("…", shown) == _VARYING.sub("…", response), path
    elif path.rpartition(".")[2] != "time_since_heartbeat":
        assert shown == response, path


def _assert_printed(shown: str, printed: str) -> None:
    """Assert that every line shown was printed; numbers may differ."""
    lines = {re.sub(r"\d+", "0", line) for line in printed.splitlines()}
    for line in shown.splitlines():
        assert re.sub(r"\d+", "0", line) in lines, (line, printed)


def test_a_block_that_is_not_executed_has_a_known_reason() -> None:
    """Blocks of commands are only in the executed sections."""
    reasons = {block.reason for title in EXECUTED_SECTIONS for block in blocks(section(title)) if block.reason}
    assert reasons == REASONS_NOT_TO_EXECUTE
    everywhere = [block.text for block in blocks(README) if block.kind == "bash"]
    in_sections = [
        block.text for title in EXECUTED_SECTIONS for block in blocks(section(title)) if block.kind == "bash"
    ]
    assert everywhere == in_sections


def test_the_table_of_settings_matches_the_code() -> None:
    """Name, default and meaning, in the same order."""
    own = {"data_dir": "the user's", "instance_id": "host-process"}
    own |= dict.fromkeys(("thresholds", "origins", "hostnames", "proxy_networks", "propagate_headers"), "none")
    shown = Settings().masked()
    expected = []
    for name, setting in SETTINGS.items():
        default = "unset" if shown[name] == "unset" else f"`{shown[name]}`"
        expected.append([f"`{setting.env}`", own.get(name, default), setting.description])

    assert table("Settings", "name") == expected


def test_the_table_of_calls_matches_the_routes() -> None:
    """Each as `METHOD /path`."""
    calls = [cells[0].strip("`") for cells in table("API", "call")]

    assert sorted(calls) == sorted(all_endpoints())


def test_the_tables_of_filters_match_the_parameters() -> None:
    """Every parameter of each call."""
    for call, known in (("`GET /agents`", LIST_AGENTS_PARAMS), ("`GET /capabilities`", LIST_CAPABILITIES_PARAMS)):
        shown = [name for cells in table("API", call) for name in re.findall(r"`(\w+)`", cells[0])]
        assert sorted(shown) == sorted(known)


def test_the_table_of_errors_matches_the_code() -> None:
    """Every code that a response may have, with its status."""
    rows = {cells[0].strip("`"): int(cells[1]) for cells in table("Errors", "code")}
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, RegistryError) and http_status(kind.__new__(kind)) != 500
    }
    expected = {kind.code: http_status(kind.__new__(kind)) for kind in kinds}
    expected |= {"not_found": 404, "method_not_allowed": 405, "request_timeout": 408, "internal_error": 500}

    assert rows == expected


def test_every_link_has_a_target() -> None:
    """An existing file, or a heading of the README."""
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_every_make_target_exists() -> None:
    """The Makefile has each target that the README names."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
