"""The start rule for the data directory: only the user of the registry may write to it."""

import contextlib
import os
import stat
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from registry.config.settings import Settings

if sys.platform != "win32":
    import grp
    import pwd


def find_shared_data_directory(settings: Settings, invalid_names: Collection[str]) -> Mapping[str, str]:
    """Return why a registry must not store its data in its data directory, by the name of the field.

    The result is empty without a data directory in the settings, and with another Redis than the embedded one.
    """
    if settings.data_dir is None or settings.redis_url is not None or "redis_url" in invalid_names:
        return {}
    problem = find_access_problem(settings.data_dir)
    return {} if problem is None else {"data_dir": problem}


def find_access_problem(directory: Path) -> str | None:
    """Return why others may write to a data directory, and the remedy; None if they may not, or if it does not exist.

    A group may write if it has no other member, as the group of each user on many systems, and fsGroup of Kubernetes.
    """
    try:
        status = directory.stat()
    except OSError:
        return None
    if sys.platform == "win32":
        return None
    if status.st_uid != os.geteuid():
        problem = f"belongs to the user {status.st_uid}, and the registry runs as {os.geteuid()}"
    elif status.st_mode & stat.S_IWOTH:
        problem = "may be written by everyone"
    elif status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid):
        problem = f"may be written by the group {status.st_gid}"
    else:
        return None
    advice = f"set it to a directory of its own, such as {directory / 'registry'}, or correct owner and mode (700)"
    return f"REGISTRY_DATA_DIR is {str(directory)!r}, which {problem}; {advice}"


def _is_private(group: int) -> bool:
    """Return whether this process is in a group and no other user is."""
    # Containers of different users run in the group 0.
    if group == 0 or group not in {os.getegid(), *os.getgroups()}:
        return False
    users = pwd.getpwall()
    own = {user.pw_name for user in users if user.pw_uid == os.geteuid()}
    members = {user.pw_name for user in users if user.pw_gid == group}
    with contextlib.suppress(KeyError):  # a group without a name, as in most containers
        members |= {*grp.getgrgid(group).gr_mem}
    return members <= own
