"""The data directory belongs to the user of the registry alone; a private group is no other user."""

import os
from pathlib import Path

import pytest

from registry.config.data_directory import find_access_problem, find_shared_data_directory
from registry.config.env import load_settings
from registry.config.exposure import find_missing_credential
from registry.errors import StartupError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another user")
USER = 10_001


def a_directory(tmp_path: Path, mode: int, user: int | None = None, group: int = USER) -> Path:
    """Create a directory with this mode and owner."""
    directory = tmp_path / "data"
    directory.mkdir()
    if user is not None:
        os.chown(directory, user, group)
    directory.chmod(mode)
    return directory


@pytest.fixture
def container_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as the user of the image, without a name and other groups."""
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(os, "getegid", lambda: USER)
    monkeypatch.setattr(os, "getgroups", list)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500, 0o2755])
def test_a_directory_that_others_only_read_is_accepted(tmp_path: Path, mode: int) -> None:
    """The embedded server corrects its mode."""
    assert find_access_problem(a_directory(tmp_path, mode)) is None


def test_a_directory_that_does_not_exist_is_accepted(tmp_path: Path) -> None:
    """It will be created for its owner only."""
    (tmp_path / "file").touch()

    assert find_access_problem(tmp_path / "new") is None
    assert find_access_problem(tmp_path / "file" / "new") is None


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """The other user may write to it."""
    directory = a_directory(tmp_path, 0o700, USER)

    assert f"belongs to the user {USER}, and the registry runs as 0" in str(find_access_problem(directory))


@needs_root
@pytest.mark.usefixtures("container_user")
def test_a_volume_of_kubernetes_is_refused_and_a_directory_in_it_is_accepted(tmp_path: Path) -> None:
    """The volume belongs to root; kubelet makes directories in it writable for fsGroup, which no other user has."""
    volume = a_directory(tmp_path, 0o2775, 0)
    inner = volume / "registry"
    inner.mkdir()
    os.chown(inner, USER, USER)
    inner.chmod(0o2770)

    assert f"set it to a directory of its own, such as {inner}" in str(find_access_problem(volume))
    assert find_access_problem(inner) is None


@needs_root
@pytest.mark.usefixtures("container_user")
@pytest.mark.parametrize("group", [0, 1, USER + 1])
def test_a_directory_of_a_group_with_other_members_is_refused(tmp_path: Path, group: int) -> None:
    """Or of a group that this process is not in."""
    directory = a_directory(tmp_path, 0o770, USER, group)

    assert f"may be written by the group {group}" in str(find_access_problem(directory))


@needs_root
@pytest.mark.usefixtures("container_user")
def test_a_group_of_several_users_is_not_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of the user `nobody` has a member in the list of users."""
    monkeypatch.setattr(os, "getegid", lambda: 65534)

    assert "group 65534" in str(find_access_problem(a_directory(tmp_path, 0o770, USER, 65534)))


def test_all_reasons_against_a_start_are_reported_together(tmp_path: Path) -> None:
    """T25: an invalid value, a missing credential and the data directory. With REDIS_URL there is no data directory."""
    directory = a_directory(tmp_path, 0o777)
    environ = {"REGISTRY_DATA_DIR": str(directory), "REGISTRY_HOST": "0.0.0.0", "REGISTRY_RETENTION": "soon"}  # noqa: S104
    checks = (find_missing_credential, find_shared_data_directory)

    with pytest.raises(StartupError) as error:
        load_settings(environ, checks)

    for text in ("REGISTRY_RETENTION", "set AUTH_TOKEN", f"REGISTRY_DATA_DIR is '{directory}', which may be written"):
        assert text in str(error.value)
    settings, _ = load_settings(
        environ | {"REDIS_URL": "redis://a", "REGISTRY_OPEN": "true", "REGISTRY_RETENTION": ""}, checks
    )
    assert settings.data_dir == directory
