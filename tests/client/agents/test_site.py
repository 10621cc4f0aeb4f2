"""The server that a process runs where it has none of its own."""

import logging

from registry.client.agents.site import new_server


def test_a_server_made_here_leaves_logging_as_it_was() -> None:
    """The SDK's servers set it up for the whole process; an application's own `basicConfig` would then do nothing."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        assert new_server("x").name == "x"
        assert (root.handlers, root.level) == ([], before[1])
    finally:
        root.handlers[:] = before[0]
