"""The file descriptors of this process, and how many of them connections may use."""

import contextlib
from typing import Final

RESERVED_DESCRIPTORS: Final = 32
"""Descriptors that connections of the API port leave for Redis, files and the metrics port."""
_MAX_DEFAULT_CONNECTIONS: Final = 20_000
# Without a limit of the operating system, as on Windows.
_UNLIMITED: Final = 1_000_000


def descriptor_limit() -> int:
    """Return the number of descriptors that this process may open."""
    with contextlib.suppress(ImportError):  # Windows
        import resource  # noqa: PLC0415

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY:
            return limit
    return _UNLIMITED


def max_connections() -> int:
    """Return the largest possible number of connections of the API port."""
    return max(1, descriptor_limit() - RESERVED_DESCRIPTORS)


def default_connections() -> int:
    """Return four fifths of the descriptors, at most 20,000."""
    return min(_MAX_DEFAULT_CONNECTIONS, descriptor_limit() * 4 // 5, max_connections())
